"""Runs of MapReduce with real workers."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from serai.apps.mapreduce.run import Options, Running, new_directory
from serai.describe.mapreduce import Commands, HostSpec, Session
from serai.describe.poolfile import site_from_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from serai.apps.mapreduce.job import Job

WORDS = [
    "".join(letters) for letters in ("ab", "caravan", "well", "road", "salt", "naïve", "Ωmega", "z", "the", "of", "and")
]
MAP = "tr -s ' ' '\\n' | awk 'length { print $0 \"\\t1\" }'"
REDUCE = (
    "LC_ALL=C awk -F '\\t' 'NR > 1 && $1 != w { print w \"\\t\" c; c = 0 } { w = $1; c += $2 }"
    ' END { if (NR) print w "\\t" c }\''
)


@dataclass
class Corpus:
    """Texts on disk, and what they hold."""

    directory: Path
    counts: Counter[str]

    def expected(self) -> list[tuple[str, int]]:
        """Every word with its count, sorted as bytes are."""
        return sorted(self.counts.items(), key=lambda pair: pair[0].encode())


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    draw = random.Random(1)  # noqa: S311 - a text from a seed
    counts: Counter[str] = Counter()
    (tmp_path / "texts").mkdir()
    for number in range(4):
        lines = []
        for _ in range(300):
            words = draw.choices(WORDS, k=draw.randint(0, 9))
            counts.update(words)
            lines.append(" ".join(words) + "\n")
        (tmp_path / "texts" / f"{number}.txt").write_text("".join(lines), encoding="utf-8")
    return Corpus(tmp_path / "texts", counts)


@dataclass
class Bench:
    """Makes runs over a corpus."""

    corpus: Corpus
    tmp_path: Path

    def session(self, hosts: Sequence[tuple[str, int]] = (("local:", 2),), **more: Any) -> Session:
        specs = tuple(HostSpec(site_from_url(url), workers) for url, workers in hosts)
        session = Session(
            path="",
            name="words",
            program=Commands(MAP, REDUCE, None, (), str(self.tmp_path)),
            hosts=specs,
            inputs=(str(self.corpus.directory),),
            output=str(self.tmp_path / "out"),
            partitions=3,
            adverts=f"sqlite:{self.tmp_path / 'adverts.db'}",
        )
        return replace(session, **more)

    def running(self, session: Session, job: Job | None = None, **options: Any) -> Running:
        directory = new_directory(os.environ, time.time(), self.tmp_path / "state")
        options.setdefault("split_bytes", 2000)
        return Running(session, directory, job=job, options=Options(**options))

    def outputs(self, directory: str = "out") -> list[bytes]:
        return [path.read_bytes() for path in sorted((self.tmp_path / directory).glob("part-*"))]

    def check(self, directory: str = "out") -> None:
        """The outputs hold every word once, each partition in order."""
        found: list[tuple[str, int]] = []
        for data in self.outputs(directory):
            lines = data.decode().splitlines()
            keys = [line.partition("\t")[0].encode() for line in lines]
            assert keys == sorted(keys)
            found += [(line.partition("\t")[0], int(line.partition("\t")[2])) for line in lines]
        assert sorted(found, key=lambda pair: pair[0].encode()) == self.corpus.expected()


@pytest.fixture
def bench(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("SERAI_STATE", str(tmp_path / "state"))
    return Bench(corpus, tmp_path)


def wait_for(condition: Callable[[], Any], within_s: float = 40.0) -> Any:
    """What a condition gives once it is true."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.01)


@pytest.fixture
def until() -> Callable[..., Any]:
    return wait_for


def processes_of(run: str) -> Iterator[int]:
    """Processes of a run's workers on this machine."""
    mark = f"SERAI_RUN={run}".encode()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if mark in file.read().split(b"\0"):
                        yield int(name)
            except OSError:
                continue


@pytest.fixture
def left_of() -> Callable[[str], list[int]]:
    return lambda run: list(processes_of(run))
