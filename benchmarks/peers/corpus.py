"""Text like English in its statistics, the same bytes for the same seed: Zipf's law over 200,000 made-up words.

    .envs/report/bin/python peers/corpus.py DIR --bytes 200000000 --files 8 --seed 1

Sentences begin with a capital and end with a stop, words may be followed by a comma, lines have about 60 to 80
characters, and everything is ASCII. It needs numpy, and so runs in the environment of the report.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

VOCABULARY = 200_000
SHIFT = 0.8  # by which "the" is a twentieth of all words, as in English
KERNEL, BEYOND = 8_000, 1.7  # Zipf's law has exponent 1 up to this rank, this one beyond (Ferrer i Cancho, Sole 2001)
LINE = 70  # characters, on average
SENTENCE, CLAUSE = 16, 11  # words, on average
CHUNK = 1_000_000  # words made at once: about 100 MB of memory
WIDTH = 18  # the longest word, a comma or a stop, a space
FREQUENT = (
    "the of and to a in that it is was i for on you he be with as by at have are this not but had his they from she "
    "which or we an there her were one do been all their has would will what if can when so no said who more about up "
    "them some could him into its then two out time like my did other me your now over just may these new also people "
    "any know very see first well after should than where back how get most way down our made got much think between "
    "years go er don't it's i'm"
)
ONSETS = "b bl br c ch cl cr d dr f fl fr g gl gr h j l m n p ph pl pr qu r s sc sh sl sp st str t th tr v w"
VOWELS = "a e i o u ai ea ee ie io oa ou"
CODAS = "l m n r s t x ck ct ld ll mp nd ng nt rd rn rs rt ss st"
OPEN = 3  # of so many syllables more than there are codas, none has a coda


def vocabulary(rng: np.random.Generator) -> list[str]:
    """Return the words, the most frequent first: real ones, then made-up ones that grow longer down the list."""
    draws = 4 * VOCABULARY
    frequent = FREQUENT.split()
    kinds = (ONSETS.split(), VOWELS.split(), [""] * OPEN + CODAS.split())
    parts = [np.array(each)[rng.integers(len(each), size=(draws, 3))] for each in kinds]
    syllables = np.char.add(np.char.add(parts[0], parts[1]), parts[2])
    counts = rng.choice(3, p=(0.12, 0.6, 0.28), size=draws)
    made = ["".join(row[: count + 1]) for row, count in zip(syllables.tolist(), counts.tolist(), strict=True)]
    distinct = [word for word in dict.fromkeys(made) if len(word) <= WIDTH - 2 and word not in frequent]
    if len(distinct) + len(frequent) < VOCABULARY:
        raise RuntimeError(f"only {len(distinct)} words could be made")
    lengths = np.array([len(word) for word in distinct])
    order = np.argsort(lengths + rng.normal(scale=3, size=len(distinct)), kind="stable")
    return frequent + [distinct[at] for at in order[: VOCABULARY - len(frequent)]]


class Writer:
    """Makes text: its tables are shared by all files of a corpus."""

    def __init__(self, seed: int) -> None:
        words = vocabulary(np.random.default_rng([seed, 0]))
        forms = [form for word in words for form in (word, word.capitalize())]
        forms += [form + mark for mark in ",." for form in forms]
        self.lengths = np.array([len(form) for form in forms], dtype=np.int64)
        padded = "".join(f"{form:<{WIDTH}}" for form in forms).encode("ascii")
        self.table = np.frombuffer(padded, dtype=np.uint8).reshape(len(forms), WIDTH)
        ranks = np.arange(1, VOCABULARY + 1)
        shares = 1 / (ranks + SHIFT) * np.minimum(1, (ranks / KERNEL) ** (1 - BEYOND))
        self.until = np.cumsum(shares) / shares.sum()
        self.seed = seed

    def chunk(self, rng: np.random.Generator) -> bytes:
        """Return one chunk of whole sentences, which ends with a line."""
        ranks = np.minimum(np.searchsorted(self.until, rng.random(CHUNK)), VOCABULARY - 1)
        marks = rng.random(CHUNK)
        stops, commas = marks < 1 / SENTENCE, marks > 1 - 1 / CLAUSE
        stops[-1], commas[-1] = True, False
        begins = np.roll(stops, 1)
        forms = 2 * ranks + begins + 2 * VOCABULARY * (commas + 2 * stops)
        lengths = self.lengths[forms]
        lines = np.cumsum(lengths + 1) // LINE
        rows = self.table[forms]
        last = np.append(lines[1:] > lines[:-1], True)
        rows[last, lengths[last]] = ord("\n")
        return rows[np.arange(WIDTH) <= lengths[:, None]].tobytes()

    def write(self, path: Path, number: int, size: int) -> None:
        """Write one file of at most `size` bytes, less than a line short of them."""
        rng = np.random.default_rng([self.seed, 1, number])
        left = size
        with path.open("wb") as out:
            while left > 0:
                text = self.chunk(rng)
                if len(text) > left:
                    text, left = text[: text.rfind(b"\n", 0, left) + 1], 0
                left -= len(text)
                out.write(text)


def main() -> None:
    """Make the files that are not there yet, each renamed when it is whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bytes", type=int, default=200_000_000)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    paths = [asked.folder / f"text-{number:03}.txt" for number in range(asked.files)]
    if all(path.exists() for path in paths):
        return
    writer = Writer(asked.seed)
    for number, path in enumerate(paths):
        part = path.with_suffix(".part")
        writer.write(part, number, asked.bytes // asked.files)
        part.rename(path)


if __name__ == "__main__":
    main()
