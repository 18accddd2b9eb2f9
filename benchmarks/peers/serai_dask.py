"""Functions through Serai over a Dask cluster of two workers, against plain Dask on that same cluster."""

from __future__ import annotations

import time

from dask_peer import dask
from meter import Asked, begin, measure
from serai_peer import engine_of


def compare(asked: Asked) -> list[dict[str, object]]:
    """Measure both, in an order that changes from round to round."""
    with dask(asked) as plain:
        address = plain.address.removeprefix("tcp://")

        def by_dask() -> dict[str, object]:
            return measure(plain, asked, peer="dask, tuned", kind="peer")

        def by_serai() -> dict[str, object]:
            import serai  # noqa: PLC0415 - a part of the start-up that is timed

            began = time.perf_counter()
            with serai.Pool(f"dask://{address}") as pool:
                return measure(engine_of(pool, began), asked, peer="serai over dask", kind="serai")

        pair = (by_dask, by_serai)
        return [take() for take in (pair if asked.turn % 2 == 0 else reversed(pair))]


if __name__ == "__main__":
    request, say = begin()
    for figure in compare(request):
        say(figure)
