"""Progress of a copy on a terminal: bytes, files, rate and what is left."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serai.data.copying.tally import Tally

LOOK_S = 0.25
PATIENCE_S = 0.7  # what is done by then shows nothing


@contextlib.contextmanager
def shown(tally: Tally) -> Iterator[None]:
    """Show a tally while the body runs; what is drawn is gone at the end."""
    end = threading.Event()
    thread = threading.Thread(target=_show, args=(tally, end), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(2.0)


def _show(tally: Tally, end: threading.Event) -> None:
    if end.wait(PATIENCE_S):
        return
    progress = Progress(
        TextColumn("{task.fields[files]}"),
        BarColumn(),
        DownloadColumn(binary_units=False),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with progress:
        task = progress.add_task("", total=None, files="")
        while True:
            files = f"{tally.done_files} of {tally.files} files"
            progress.update(task, completed=tally.done_bytes, total=tally.size or None, files=files)
            if end.wait(LOOK_S):
                return
