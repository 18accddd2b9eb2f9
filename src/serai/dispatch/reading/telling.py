"""What is said of inputs: how they came, and what the other ways would have cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serai.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_TOLD = 5  # inputs of one task, of which a note says how they came


def joined(ways: Sequence[str]) -> str:
    """How inputs came, of which there may be many."""
    more = f" and {len(ways) - MOST_TOLD} more" if len(ways) > MOST_TOLD else ""
    return "; ".join(ways[:MOST_TOLD]) + more


def read_words(read_bytes: int, size: int, took_s: float) -> str:
    """How much of a file was read from afar."""
    return f"read from afar: {format_bytes(read_bytes)} of {format_bytes(size)} in {took_s:.1f} s"
