"""``serai explain any://…``: which way is taken to files, and why not the others."""

from __future__ import annotations

import sys

import click


def explain_url(url: str, width: int) -> None:
    """Print the ways to a URL's files in their order, with what came of each; exit with 1 when none can be taken."""
    import textwrap  # noqa: PLC0415 - `serai --help` does without

    from serai.access.filesystems.anywhere import decide  # noqa: PLC0415 - the same

    decision = decide(url)
    chosen = decision.chosen
    click.echo(f"{decision.url}: " + (f"by {chosen.url}" if chosen is not None else "no way leads there"))
    for one in decision.candidates:
        mark = "*" if one is chosen else " "
        text = f"{one.url}: {one.reason}: {one.outcome}"
        click.echo(
            textwrap.fill(
                text,
                width,
                initial_indent=f"{mark} ",
                subsequent_indent="    ",
                break_on_hyphens=False,
                break_long_words=False,
            )
        )
    if chosen is None:
        sys.exit(1)
