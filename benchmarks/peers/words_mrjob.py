"""Word count by mrjob, which runs what Hadoop streaming would: lines through pipes, GNU sort between map and reduce.

    words_mrjob.py [--within] -r local --num-cores 2 --output-dir DIR --no-cat-output FILE...

Without `--within` it is the example of mrjob's documentation with a combiner: every word is written, sorted and summed.
With it, each mapper counts within itself, which is the fastest form that streaming allows.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mrjob.job import MRJob
from mrjob.protocol import TextProtocol
from mrjob.step import MRStep

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Words(MRJob):
    """Counts words."""

    INTERNAL_PROTOCOL = TextProtocol  # faster than the default, JSON
    OUTPUT_PROTOCOL = TextProtocol

    def configure_args(self) -> None:
        """Add the form."""
        super().configure_args()
        self.add_passthru_arg("--within", action="store_true")

    def steps(self) -> list[MRStep]:
        """Return the one step, in the form asked for."""
        if self.options.within:
            return [
                MRStep(
                    mapper_init=self.begin, mapper=self.count_line, mapper_final=self.give_counts, reducer=self.total
                )
            ]
        return [MRStep(mapper=self.give_words, combiner=self.total, reducer=self.total)]

    def give_words(self, _: object, line: str) -> Iterator[tuple[str, str]]:
        """Map a line to a one for each word."""
        for word in line.split():
            yield word, "1"

    def begin(self) -> None:
        """Start counting."""
        self.counts: Counter[str] = Counter()

    def count_line(self, _: object, line: str) -> None:
        """Count a line."""
        self.counts.update(line.split())

    def give_counts(self) -> Iterator[tuple[str, str]]:
        """Map what was counted."""
        for word, count in self.counts.items():
            yield word, str(count)

    def total(self, word: str, counts: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Sum up."""
        yield word, str(sum(map(int, counts)))


if __name__ == "__main__":
    Words.run()
