from __future__ import annotations

from serai.describe.task import Needs
from serai.match.explaining import Candidate, needs_in, what_fits, who_can


def test_who_can_run_a_task_and_who_cannot() -> None:
    needs = Needs(cores=4, memory_bytes=4 * 10**9, software=("samtools",))
    fit = who_can(
        needs,
        [
            Candidate("able", {"software": {"samtools": True}}, 4, 8 * 10**9),
            Candidate("small", {"software": {"samtools": True}}, 2, 8 * 10**9),
            Candidate("tight", {"software": {"samtools": True}}, 4, 10**9),
            Candidate("bare", {"software": {"samtools": False}}, 4, 0),
            Candidate("unasked", {}, 0, 0),
        ],
    )
    assert fit.able == ("able",)
    assert dict(fit.unable) == {
        "small": "it needs 4 cores and this node has 2",
        "tight": "it needs 4 GB of memory and this node has 1 GB",
        "bare": "it needs samtools, which this node does not have",
    }
    assert fit.unsure == (("unasked", ("samtools",)),)


def test_what_would_fit() -> None:
    assert what_fits(Needs()) == ""
    needs = Needs(cores=4, memory_bytes=4 * 10**9, software=("bwa", "samtools"), python=(3, 12))
    assert what_fits(needs) == "at least 4 cores, at least 4 GB of memory, bwa, samtools on its PATH, Python 3.12"


def test_needs_as_a_journal_has_them() -> None:
    assert needs_in({}) == Needs()
    stated = {"cores": 2, "memory_bytes": 5, "software": ["bwa"], "python": [3, 11]}
    assert needs_in({"needs": stated}) == Needs(2, 5, ("bwa",), (3, 11))
