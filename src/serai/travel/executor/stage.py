"""A task's place on the node: its directory, its inputs laid down, its outputs checked and sent."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat

from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

MISSING_OUTPUT, INPUT, OUTPUT = 6, 7, 8


class StageError(Exception):
    """An input or an output is not as declared; ``cause`` is the number of the task's cause."""

    def __init__(self, cause: int, sentence: str) -> None:
        Exception.__init__(self, sentence)
        self.cause = cause


class NotHere(Exception):
    """An input that was to be used where it lies cannot be.

    Attributes:
        path: where it was to be.
        why: in words.
    """

    def __init__(self, path: str, why: str) -> None:
        Exception.__init__(self, path, why)
        self.path = path
        self.why = why


class NoMount(NotHere):
    """A task cannot read from afar here."""


class Spoiled(NotHere):
    """A file of the cache is not what it was.

    Attributes:
        number: the file's.
        stamp: what it should have.
    """

    def __init__(self, number: int, stamp: Sequence[int], path: str) -> None:
        NotHere.__init__(self, path, "something has written to it")
        self.number = number
        self.stamp = list(stamp)


def words_of(error: OSError | ValueError) -> str:
    """What an error of the system says, without numbers and paths."""
    return getattr(error, "strerror", None) or str(error)


def remove(path: str) -> bool:
    """Remove a file or a directory with all that is in it; returns whether it is gone.

    Programs leave directories that even their owner may not write to (caches of some package managers do).
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        return True
    except OSError:
        pass
    else:
        return True
    shutil.rmtree(path, ignore_errors=True)
    if not os.path.lexists(path):
        return True
    _allow(path)
    for directory, names, _ in os.walk(path):
        for name in names:
            _allow(os.path.join(directory, name))  # before the walk goes into it
    shutil.rmtree(path, ignore_errors=True)
    return not os.path.lexists(path)


def _allow(path: str) -> None:
    if not os.path.islink(path):
        with contextlib.suppress(OSError):
            os.chmod(path, 0o700)


def _raise(error: OSError) -> None:
    raise error


def _unreadable(path: str) -> str:
    """Why a file cannot be read; empty if it can."""
    if not os.path.isabs(path):
        return "its path is not absolute"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a named pipe would wait for its writer
        try:
            return "" if stat.S_ISREG(os.fstat(fd).st_mode) else "it is not a file"
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        return words_of(error)


class Stage:
    """The place of a lane's tasks.

    Args:
        base: the executor's own directory on the node.
        number: the lane's number.
    """

    def __init__(self, base: str, number: int) -> None:
        base = os.path.realpath(base)
        self._number = number
        self._inputs = os.path.join(base, "in")
        self.directory = os.path.join(base, "task-%d" % number)
        self.bad: dict[int, str] = {}  # key of an input: why it did not arrive
        self.held: dict[
            int, tuple[int, int] | str
        ] = {}  # number of a file of the cache: its stamp, or why it is not there
        self._held = os.path.join(base, "held")
        os.makedirs(self.directory, exist_ok=True)
        self.clean()  # a lane of this number may have died here

    def lay(
        self,
        shared: Iterable[tuple[int, str]],
        own: Iterable[tuple[Any, str]],
        landing: Iterable[tuple[str, str]] | None,
    ) -> None:
        """Lay down a task's inputs: ``shared`` ones as links, its ``own`` ones moved from where they arrived.

        Args:
            shared: (key, path) pairs.
            own: (key, path) pairs; for a file that is used where it lies, its absolute path in place of the key; for
                one of the cache, {"file": its number}.
            landing: where outputs are written on this machine: [temporary directory, path in it] pairs, or None.

        Raises:
            StageError: something cannot be laid down.
            NotHere: a file cannot be used where it was to lie, or is not what it was.
        """
        for key, path in shared:
            self._lay(key, path, share=True)
        for source, path in own:
            if isinstance(source, str):
                self._link(source, path)
            elif isinstance(source, dict):
                self._lay_held(int(source["file"]), path)
            else:
                self._lay(source, path, share=False)
        for directory, _ in landing or ():
            try:
                os.makedirs(directory, exist_ok=True)
            except OSError as error:
                raise StageError(OUTPUT, "cannot make %s: %s" % (directory, error.strerror)) from error

    def _lay(self, key: int, path: str, *, share: bool) -> None:
        source = os.path.join(self._inputs, str(key))
        if key in self.bad:
            raise StageError(INPUT, "the input %s did not arrive whole: %s" % (path, self.bad[key]))
        try:
            target = self._place(path)
            if os.path.lexists(target):
                if share and os.path.samefile(source, target):
                    return  # two names of one input
                raise StageError(INPUT, "two inputs are both called %s" % path)
            if share and os.path.isdir(source):
                os.symlink(source, target)
            elif share:  # a second name and no symbolic link: Python looks for modules where such a one points to
                os.link(source, target)
            else:
                os.rename(source, target)
        except (OSError, ValueError) as error:
            raise StageError(INPUT, "cannot lay down the input %s: %s" % (path, words_of(error))) from error

    def _link(self, there: str, path: str) -> None:
        """Lay down a file that is used where it lies."""
        trouble = _unreadable(there)
        if trouble:
            raise NotHere(there, trouble)
        self.see(there, path)

    def see(self, there: str, path: str) -> None:
        """Let a file be seen that is, or will be, somewhere else."""
        try:
            target = self._place(path)
            if os.path.lexists(target):
                raise StageError(INPUT, "two inputs are both called %s" % path)
            os.symlink(there, target)
        except (OSError, ValueError) as error:
            raise StageError(INPUT, "cannot lay down the input %s: %s" % (path, words_of(error))) from error

    def _lay_held(self, number: int, path: str) -> None:
        """Lay down a file of the cache as a second name of it, which nobody may write to."""
        known = self.held.get(number, "nobody has fetched it")
        if isinstance(known, str):
            raise StageError(INPUT, "the input %s did not arrive whole: %s" % (path, known))
        source = os.path.join(self._held, str(number))
        try:
            try:
                info = os.lstat(source)
            except FileNotFoundError:  # somebody has noticed before us, and it is on its way again, perhaps
                raise Spoiled(number, known, path) from None
            if (info.st_size, info.st_mtime_ns) != tuple(known):
                raise Spoiled(number, known, path)
            target = self._place(path)
            if os.path.lexists(target):
                raise StageError(INPUT, "two inputs are both called %s" % path)
            try:
                os.link(source, target, follow_symlinks=False)
            except OSError:  # a file system without hard links
                os.symlink(source, target)
        except (OSError, ValueError) as error:
            raise StageError(INPUT, "cannot lay down the input %s: %s" % (path, words_of(error))) from error

    def _place(self, path: str) -> str:
        """Where an input belongs, its directory made."""
        target = self._inside(path)
        parent = os.path.dirname(target)
        if parent != self.directory:
            if os.path.realpath(parent) != parent:
                raise StageError(INPUT, "the input %s would lie inside of another input" % path)
            os.makedirs(parent, exist_ok=True)
        return target

    def _inside(self, path: str) -> str:
        whole = os.path.normpath(os.path.join(self.directory, path))
        if not whole.startswith(self.directory + os.sep):
            raise StageError(INPUT, "%s would leave the task's directory" % path)
        return whole

    def prepare(self, outputs: Iterable[str]) -> None:
        """Make the directories that outputs will be written to."""
        for path in outputs:
            os.makedirs(os.path.dirname(self._inside(path)), exist_ok=True)

    def landed(self, landing: Iterable[tuple[str, str]]) -> list[int]:
        """Check outputs that were written on this machine; returns a size in bytes for each, -1 for a directory."""
        return [self._size(path, os.path.basename(path)) for _, path in landing]

    @staticmethod
    def _size(path: str, name: str) -> int:
        try:
            info = os.stat(path)
        except OSError as error:
            raise StageError(MISSING_OUTPUT, "it ended well but did not write its output %s" % name) from error
        return -1 if stat.S_ISDIR(info.st_mode) else info.st_size

    def send(self, task: int, bundle: int, outputs: Sequence[str], send: Callable[[bytes], None]) -> list[int]:
        """Send a task's outputs to the front end; returns a size in bytes for each, -1 for a directory."""
        sizes = []
        for index, path in enumerate(outputs):
            whole = self._inside(path)
            sizes.append(self._size(whole, path))
            head = {"bundle": bundle, "output": index}
            try:
                if sizes[-1] < 0:
                    self._send_tree(task, head, whole, send)
                else:
                    self._send_file(task, head, whole, send)
            except OSError as error:
                raise StageError(OUTPUT, "cannot read its output %s: %s" % (path, error.strerror)) from error
        return sizes

    def _send_tree(self, task: int, head: dict[str, Any], top: str, send: Callable[[bytes], None]) -> None:
        for directory, _, names in os.walk(top, onerror=_raise):
            under = os.path.relpath(directory, top)
            send(wire.pack(wire.OUTPUT, self._number, task, dict(head, under=under, directory=1)))
            for name in names:
                within = dict(head, under=os.path.normpath(os.path.join(under, name)))
                self._send_file(task, within, os.path.join(directory, name), send)

    def _send_file(self, task: int, head: dict[str, Any], path: str, send: Callable[[bytes], None]) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a named pipe would wait for its writer
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise OSError(0, "it is neither a file nor a directory")
            head = dict(head, size=info.st_size, mode=stat.S_IMODE(info.st_mode), at=0)
            while True:
                data = os.read(fd, wire.CHUNK)
                if data or head["at"] == 0:
                    send(wire.pack(wire.OUTPUT, self._number, task, head, data))
                if not data:
                    break
                head["at"] += len(data)
        finally:
            os.close(fd)
        if head["at"] != info.st_size:
            raise OSError(0, "it changed while it was read")

    def clean(self) -> None:
        """Leave nothing of the last task; costs a look into the directory when it wrote nothing.

        Raises:
            OSError: there is no place for another task.
        """
        try:
            names = os.listdir(self.directory)
            if all([remove(os.path.join(self.directory, name)) for name in names]):  # noqa: C419 - all are to be removed
                return
        except OSError:
            pass  # the task removed its directory, or moved it away
        remove(self.directory)
        os.makedirs(self.directory)
