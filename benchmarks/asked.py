"""What was asked of the studies of data, beside what the figures of a run reached. Pure.

Figures that lack what a sentence needs make it say so: a table never shows less than was asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Figures = Sequence[Mapping[str, Any]]

NO_FIGURE = "no figure"


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing that was asked.

    Attributes:
        what: of what.
        target: in words.
        reached: says what the figures reached, and whether that is enough; None where there are none.
    """

    what: str
    target: str
    reached: Callable[[Figures], tuple[str, bool] | None]


def table(study: str, figures: Figures) -> list[str]:
    """Return the table of a study in markdown; nothing where nothing was asked."""
    rows = []
    for each in ASKED.get(study, ()):
        told = each.reached(figures)
        words = NO_FIGURE if told is None else f"**{told[0]}**" if told[1] else f"not reached: {told[0]}"
        rows.append(f"| {each.what} | {each.target} | {words} |")
    return ["| what | asked | reached |", "|---|---|---|", *rows, ""] if rows else []


def middle(figures: Figures, peer: str, name: str, what: str = "") -> float | None:
    """Return the median of a number of one peer (by its name, or what stands before a comma) in one part, if any."""
    values = [
        figure[name]
        for figure in figures
        if _is(figure["peer"], peer) and figure.get("what", "").startswith(what) and name in figure
    ]
    return median(values) if values else None


def _is(peer: str, asked: str) -> bool:
    return peer == asked or ("," not in asked and peer.startswith(f"{asked},")) or peer.split(maxsplit=1)[0] == asked


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _over_least(figures: Figures) -> tuple[str, bool] | None:
    over = middle(figures, "serai, auto", "over_least")
    return None if over is None else (f"{over:.3f} x the least", over <= 1.05)


def _faster(figures: Figures, than: str, least: float, named: str) -> tuple[str, bool] | None:
    ratio = _ratio(middle(figures, than, "wall_s"), middle(figures, "serai, auto", "wall_s"))
    return None if ratio is None else (f"{ratio:.2f} x {named}", ratio >= least)


def _over_blind(figures: Figures) -> tuple[str, bool] | None:
    return _faster(figures, "serai, blind", 2.5, "as fast")


def _over_peers(figures: Figures) -> tuple[str, bool] | None:
    peers = sorted({figure["peer"] for figure in figures if figure["kind"] == "peer"})
    each = [told for peer in peers if (told := _faster(figures, peer, 1.0, peer)) is not None]
    return ("; ".join(words for words, _ in each), all(enough for _, enough in each)) if each else None


def _appliance(peer: str, least: float) -> Callable[[Figures], tuple[str, bool] | None]:
    def reached(figures: Figures) -> tuple[str, bool] | None:
        parts = []
        own = [figure for figure in figures if figure["peer"] in {"serai", peer}]  # neither by curl nor by path
        for what in dict.fromkeys(figure["what"] for figure in own):
            ratio = _ratio(middle(own, peer, "wall_s", what), middle(own, "serai", "wall_s", what))
            if ratio is None:
                return None
            parts.append((what, ratio))
        words = "; ".join(f"{what} {ratio:.2f}" for what, ratio in parts)
        return (words, all(ratio >= least for _, ratio in parts)) if parts else None

    return reached


def _placements(figures: Figures) -> tuple[str, bool] | None:
    rate = middle(figures, "serai, auto", "placements_s")
    return None if rate is None else (f"{rate:,.0f}/s", rate > 10_000)


def _flat(figures: Figures) -> tuple[str, bool] | None:
    first, last = middle(figures, "serai, auto", "first_tenth_s"), middle(figures, "serai, auto", "last_tenth_s")
    ratio = _ratio(last, first)
    if ratio is None:
        return None
    return f"{last:,.0f}/s in the last tenth, {first:,.0f}/s in the first", ratio >= 0.8


def _over_sshfs(figures: Figures) -> tuple[str, bool] | None:
    ratio = _ratio(middle(figures, "sshfs", "wall_s", "sequential"), middle(figures, "serai", "wall_s", "sequential"))
    return None if ratio is None else (f"{ratio:.2f} x sshfs's rate", ratio >= 0.8)


def _moved(figures: Figures) -> tuple[str, bool] | None:
    ratio = _ratio(middle(figures, "serai", "moved_bytes", "random"), middle(figures, "serai", "bytes", "random"))
    return None if ratio is None else (f"{ratio:.2f} x the bytes read", ratio <= 1.3)


ASKED = {
    "diffusion": (
        Asked("bytes over the links", "within 5 % of the least possible", _over_least),
        Asked("against the same tasks placed blindly", "2.5 x as fast", _over_blind),
        Asked("against Dask and Parsl on the same hosts", "ahead", _over_peers),
    ),
    "decisions": (
        Asked("placements", "over 10,000/s", _placements),
        Asked("as the queue empties from a million", "flat", _flat),
    ),
    "appliance": (
        Asked("against chirp_server", "at least its rate", _appliance("chirp", 1.0)),
        Asked("against nginx", "0.8 of its rate", _appliance("nginx curl", 0.8)),
    ),
    "mount": (
        Asked("sequential read of 1 GB", "0.8 of sshfs or better", _over_sshfs),
        Asked("20 random reads of 1 MB in 300 MB, 20 ms away", "moves at most 1.3 x the bytes read", _moved),
    ),
}
