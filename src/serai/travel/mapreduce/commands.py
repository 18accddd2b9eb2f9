"""Commands as filters: fed on their standard input, read from their standard output, ended with their children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading

from ..processes import kill_tree, signal_group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

CHUNK = 1 << 18
MOST_SAID = 1 << 13  # bytes of standard error that are kept: the last
MOST_LINES = 20
END_S = 5.0
FEED = 1 << 16  # bytes: small pieces are gathered to so much before they are written


class CommandFailed(Exception):
    """A mapper, combiner or reducer ended badly."""


class Command:
    """What is run.

    Args:
        words: the program and its arguments, or one text for ``/bin/sh``.
        environment: for it, beside this process's own.
        what: ``mapper``, ``combiner`` or ``reducer``, for errors.
        directory: where it is run; None for this process's own.
    """

    def __init__(
        self,
        words: Sequence[str] | str,
        environment: Mapping[str, str] | None = None,
        what: str = "command",
        directory: str | None = None,
    ) -> None:
        self.words = words
        self.environment = dict(environment or {})
        self.what = what
        self.directory = directory

    def with_environment(self, more: Mapping[str, str]) -> Command:
        """The same with more variables."""
        return Command(self.words, {**self.environment, **more}, self.what, self.directory)

    def __str__(self) -> str:
        words = self.words if isinstance(self.words, str) else " ".join(self.words)
        return words if len(words) <= 200 else words[:200] + "…"

    def start(self) -> subprocess.Popen[bytes]:
        """Start it in a session of its own, with pipes.

        Raises:
            CommandFailed: it cannot be started.
        """
        shell = isinstance(self.words, str)
        try:
            return subprocess.Popen(
                self.words,
                shell=shell,  # one text is meant for a shell
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=self.directory,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise CommandFailed("the %s cannot be started: %s: %s" % (self.what, self, error)) from error


class _Feeder(threading.Thread):
    """Writes blocks to a command; what goes wrong with the blocks is kept for the one who reads."""

    def __init__(self, blocks: Iterable[bytes], pipe: Any) -> None:
        super().__init__(name="feed", daemon=True)
        self._blocks = blocks
        self._pipe = pipe
        self.error: BaseException | None = None
        self.stop = False

    def run(self) -> None:
        try:
            with self._pipe:
                for block in in_pieces(self._blocks):
                    if self.stop or not self._write(block):
                        return
        except BrokenPipeError:
            pass  # at the close
        except BaseException as error:  # noqa: BLE001 - handed to the reader, whatever it was
            self.error = error

    def _write(self, block: bytes) -> bool:
        view = memoryview(block)
        try:
            while view:
                view = view[self._pipe.write(view) :]
        except BrokenPipeError:
            return False  # it needs no more: whether that is well, its exit code says
        return True


def in_pieces(blocks: Iterable[bytes], least: int = FEED) -> Iterator[bytes]:
    """Gather small pieces into larger ones, so that each is worth its write."""
    held: list[bytes] = []
    size = 0
    for block in blocks:
        held.append(block)
        size += len(block)
        if size >= least:
            yield held[0] if len(held) == 1 else b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


class _Tail(threading.Thread):
    """Keeps the end of what a command says on its standard error."""

    def __init__(self, pipe: Any) -> None:
        super().__init__(name="said", daemon=True)
        self._pipe = pipe
        self._kept = b""

    def run(self) -> None:
        with self._pipe:
            while True:
                data = self._pipe.read(CHUNK)
                if not data:
                    return
                self._kept = (self._kept + data)[-MOST_SAID:]

    def text(self) -> str:
        """The last lines."""
        return "\n".join(self._kept.decode("utf-8", "replace").splitlines()[-MOST_LINES:])


def run_filter(command: Command, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Run a command with blocks as its input and give its output as it comes.

    Args:
        command: what to run.
        blocks: its standard input; taken in a thread of its own, no faster than the command reads.

    Yields:
        Chunks of its standard output.

    Raises:
        CommandFailed: it cannot be started, or its exit status is not 0.
    """
    process = command.start()
    feeder, tail = _Feeder(blocks, process.stdin), _Tail(process.stderr)
    feeder.start()
    tail.start()
    output = process.stdout
    if output is None:
        raise CommandFailed("the %s has no output" % command.what)
    try:
        while True:
            data = os.read(output.fileno(), CHUNK)
            if not data:
                break
            yield data
        code = process.wait()
        # Children of its own may hold its pipes; what it left running is ended before they are waited for.
        end_tree(process)
        feeder.join(END_S)
        tail.join(END_S)
        if feeder.error is not None:
            raise feeder.error
        if code:
            said = tail.text()
            how = "ended with exit status %d" % code if code > 0 else "was ended by signal %d" % -code
            raise CommandFailed("the %s %s: %s%s" % (command.what, how, command, "\n" + said if said else ""))
    finally:
        feeder.stop = True
        end_tree(process)
        output.close()
        feeder.join(END_S)


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a command and what it started; what left its group after its end is the worker's to find, which adopts it."""
    if process.poll() is None:
        kill_tree(process.pid)
    signal_group(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
