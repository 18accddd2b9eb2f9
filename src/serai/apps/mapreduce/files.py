"""What the front end reads and writes for workers: inputs, map outputs of workers that cannot meet, and outputs.

A worker names an input by its URL and a map output by its path; only those of this run are read. Of an output it names
the file and the attempt; where that lies is decided here.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import hashlib
import os
import queue
import re
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

from serai.apps.mapreduce.inputs import filesystem_of, key_of, local_path
from serai.errors import DeadlineExceeded, SeraiError, TransferFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from serai.apps.mapreduce.plan import Input

MOST_READ = 4 << 20  # bytes of one answer
MOST_OPEN = 64  # files that are kept open
PEER_S = 30.0  # for a map output to come from its host
LOOK_S = 0.25
LANDING = ".serai-mr-"  # and the run's name: where attempts at outputs are written, beside the outputs
STALE_S = 60.0
PAUSES_S = (1.0, 3.0)  # before an output is brought elsewhere again


class Relay:
    """Reads for workers.

    Args:
        inputs: that may be read.
        ssh_configs: for each host, as inputs name it, the file that ssh is given.
        holds: whether a worker's map output is at a path; gives that worker's host, None for no.
    """

    def __init__(
        self,
        inputs: Iterable[Input],
        ssh_configs: Mapping[str, str | None],
        holds: Callable[[str, str], str | None],
    ) -> None:
        self._inputs = {one.url: one for one in inputs}
        self._configs = ssh_configs
        self._holds = holds
        self._lock = threading.Lock()
        self._open: collections.OrderedDict[str, int] = collections.OrderedDict()

    def read_input(self, head: dict[str, Any], _body: bytes) -> tuple[dict[str, Any], bytes]:
        """The handler of ``file.read``: {url, start, length} -> bytes, fewer only at the end."""
        one = self._inputs.get(str(head.get("url")))
        if one is None:
            raise UsageError(f"{head.get('url')} is no input of this run")
        start, length = _range(head)
        if one.host == "" and one.path is not None:
            return {}, self._read_here(one.path, start, length, one)
        return {}, self._read_there(one.url, one.host, start, length)

    def read_peer(self, head: dict[str, Any], _body: bytes) -> tuple[dict[str, Any], bytes]:
        """The handler of ``peer.read``: {worker, path, start, length} -> bytes of its map output."""
        worker, path = str(head.get("worker")), str(head.get("path"))
        host = self._holds(worker, path)
        if host is None:
            raise FileNotFoundError(f"worker {worker} has no output {path}")
        start, length = _range(head)
        if host == "":
            return {}, self._read_here(path, start, length)
        url = f"ssh://{host}{path}"
        return {}, _while(
            lambda: self._holds(worker, path) is not None, lambda: self._read_there(url, host, start, length), url
        )

    def _read_here(self, path: str, start: int, length: int, one: Input | None = None) -> bytes:
        with self._lock:  # a file that another thread closes meanwhile would be another file
            fd = self._open.pop(path, None)
        if fd is None:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if one is not None and _changed(one, os.fstat(fd)):
                raise UsageError(f"the input {path} was changed after the run began", hint="run it again")
            parts = []
            while length:
                data = os.pread(fd, length, start)
                if not data:
                    break
                parts.append(data)
                start += len(data)
                length -= len(data)
        finally:
            self._keep(path, fd)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _keep(self, path: str, fd: int) -> None:
        with self._lock:
            former = self._open.pop(path, None)
            self._open[path] = fd
            oldest = self._open.popitem(last=False)[1] if len(self._open) > MOST_OPEN else None
        for one in (former, oldest):
            if one is not None:
                os.close(one)

    def _read_there(self, url: str, host: str | None, start: int, length: int) -> bytes:
        filesystem, path = filesystem_of(url, None if host is None else self._configs.get(host))
        return bytes(filesystem.cat_file(path, start=start, end=start + length))

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            files, self._open = self._open, collections.OrderedDict()
        for fd in files.values():
            os.close(fd)


def _changed(one: Input, found: os.stat_result) -> bool:
    """Whether a file is not what was split: a map that is made again would give something else."""
    if one.mtime is None:
        return False
    return (one.size, one.mtime, one.inode) != (found.st_size, int(found.st_mtime), found.st_ino)


def _while(wanted: Callable[[], bool], read: Callable[[], bytes], what: str) -> bytes:
    """Reads, and gives up when it is known that nothing will come: a host that died is silent for a long time.

    Raises:
        FileNotFoundError: it is not wanted any more.
        DeadlineExceeded: it took too long.
    """
    answers: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(read())
        except BaseException as error:  # noqa: BLE001 - raised again below
            answers.put(error)

    threading.Thread(target=work, name="relay", daemon=True).start()
    for _ in range(int(PEER_S / LOOK_S)):
        with contextlib.suppress(queue.Empty):
            answer = answers.get(timeout=LOOK_S)
            if isinstance(answer, BaseException):
                raise answer
            return answer
        if not wanted():
            raise FileNotFoundError(f"{what}: the worker is gone")
    raise DeadlineExceeded(f"{what}: nothing came within {PEER_S:g} s")


def _range(head: dict[str, Any]) -> tuple[int, int]:
    start, length = head.get("start"), head.get("length")
    if not isinstance(start, int) or not isinstance(length, int) or start < 0 or not 0 <= length <= MOST_READ:
        raise UsageError(f"bytes {start} and {length} more are no range that is read at once")
    return start, length


class Outputs:
    """The outputs of a run: each attempt is written beside its final place, and one of them is renamed.

    Args:
        run: the run's name, for the directory that is made beside the outputs.
        directory: where outputs belong, a path or a URL.
        prefix: what their names begin with.
        meanwhile: the directory here in which outputs wait that belong elsewhere.
        ssh_configs: for each host, as inputs name it, the file that ssh is given.
    """

    def __init__(
        self, run: str, directory: str, prefix: str, meanwhile: str, ssh_configs: Mapping[str, str | None]
    ) -> None:
        self.prefix = prefix
        here = local_path(directory)
        self.elsewhere = directory.rstrip("/") if here is None else None
        self._config = ssh_configs.get(key_of(directory) or "")
        if here is None:  # they are kept here until they travel
            here = os.path.join(meanwhile, "outputs")
        self.directory = os.path.abspath(os.path.expanduser(here))
        self.landing = os.path.join(self.directory, f"{LANDING}{run}")
        self._undelivered = False
        self._held = -1  # the landing's descriptor: its lock says to other runs that this one lives
        self._lock = threading.Lock()
        self._whole: dict[tuple[str, int], int] = {}  # the sizes of attempts that were committed
        self._locks: dict[tuple[str, int], threading.Lock] = {}

    def open(self, partitions: int) -> None:
        """Make the directory.

        Args:
            partitions: how many outputs there will be.

        Raises:
            UsageError: it cannot be made or written to, or has outputs that would mix with those of this run.
        """
        try:
            os.makedirs(self.landing, mode=0o700)
            self._held = os.open(self.landing, os.O_RDONLY | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # a file system without locks is not swept
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._sweep()
            names = os.listdir(self.directory)
        except OSError as error:
            raise UsageError(f"outputs cannot be written to {self.directory}: {error.strerror}") from error
        if self.elsewhere is not None:
            names = self._names_there(self.elsewhere)
        wanted = re.compile(re.escape(self.prefix) + r"part-(\d{5,})", re.ASCII)
        former = sorted(name for name in names if (match := wanted.fullmatch(name)) and int(match[1]) >= partitions)
        if former:
            where = self.elsewhere or self.directory
            raise UsageError(
                f"{where} has {len(former)} outputs of a run with more partitions, such as {former[0]}",
                hint="remove them, or name another directory",
            )

    def _names_there(self, url: str) -> list[str]:
        """Make a directory elsewhere, now rather than when all has been computed; gives what is in it."""
        try:
            filesystem, directory = filesystem_of(url, self._config)
            filesystem.makedirs(directory, exist_ok=True)
        except SeraiError:
            raise
        except Exception as error:  # file systems of others raise what they like
            raise UsageError(f"outputs cannot be written to {url}: {type(error).__name__}: {error}") from error
        try:
            return [os.path.basename(str(name)) for name in filesystem.ls(directory, detail=False)]
        except Exception:  # noqa: BLE001 - as above; who may write there need not be allowed to list
            return []

    def _sweep(self) -> None:
        """Remove what runs left here whose front ends were killed; one that just began may not hold its lock yet."""
        began = os.fstat(self._held).st_mtime
        for entry in list(os.scandir(self.directory)):
            if not entry.name.startswith(LANDING) or entry.path == self.landing:
                continue
            with contextlib.suppress(OSError):  # it lives, or is another user's
                fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if began - os.fstat(fd).st_mtime > STALE_S:
                        shutil.rmtree(entry.path)
                finally:
                    os.close(fd)

    def path_of(self, name: str, attempt: int) -> str:
        """Where an attempt's output is until it is accepted."""
        if not re.fullmatch(r"part-\d{5,}", name, re.ASCII):
            raise UsageError(f"{name!r} is no output of this run")
        return os.path.join(self.landing, f"{name}.{attempt}")

    def final(self, name: str) -> str:
        """Where an output is once it is accepted."""
        return os.path.join(self.directory, self.prefix + name)

    def succeed(self, run: str) -> None:
        """Take the place of a run, and remove the attempts that it left.

        Raises:
            UsageError: it goes on, or has no outputs here.
        """
        if self.elsewhere is not None:
            raise UsageError(
                f"run {run} cannot be resumed: outputs at {self.elsewhere} are brought there at the end, all at once",
                hint="without --resume it begins anew",
            )
        former = os.path.join(self.directory, f"{LANDING}{run}")
        try:
            fd = os.open(former, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return  # it cleared up behind itself
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(former, ignore_errors=True)
        except OSError:
            raise UsageError(f"run {run} still goes on", hint=f"serai cancel {run}") from None
        finally:
            os.close(fd)

    def write(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """The handler of ``file.write``: {name, attempt, offset}, bytes."""
        name, attempt, offset = _attempt(head), _number(head, "attempt"), _number(head, "offset")
        path = self.path_of(name, attempt)
        with self._lock_of(name, attempt):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                view = memoryview(body)
                while view:
                    written = os.pwrite(fd, view, offset)
                    offset, view = offset + written, view[written:]
            finally:
                os.close(fd)
        return {}, b""

    def commit(self, head: dict[str, Any], _body: bytes) -> tuple[dict[str, Any], bytes]:
        """The handler of ``file.commit``: {name, attempt, size, digest}; what was written is whole."""
        name, attempt = _attempt(head), _number(head, "attempt")
        path = self.path_of(name, attempt)
        with self._lock_of(name, attempt):
            if not os.path.exists(path):
                open(path, "xb").close()  # an output without a record
            self._check(path, _number(head, "size"), head.get("digest"))
        return {}, b""

    def _check(self, path: str, size: int, digest: Any) -> None:
        got = os.path.getsize(path)
        if got != size:
            raise SeraiError(f"{got} of {size} bytes of the output came")
        if digest:
            with open(path, "rb") as file:
                name, _, value = str(digest).rpartition(":")
                found = hashlib.file_digest(file, lambda: _hash(name, value)).hexdigest()
            if found != value:
                raise SeraiError("the output that came is not the one that was written")

    def accept(self, name: str, attempt: int, size: int | None) -> str:
        """Give an attempt's output its final name, and say which.

        Raises:
            OSError: it is not there, or cannot be renamed.
            SeraiError: it is not whole.
        """
        path, final = self.path_of(name, attempt), self.final(name)
        if size is not None:
            self._check(path, size, None)
        os.chmod(path, 0o666 & ~_umask())
        os.replace(path, final)
        return final

    def deliver(self, finals: Iterable[str]) -> list[str]:
        """Take the outputs to a directory elsewhere; each is renamed there when it is whole.

        Returns:
            Their paths or URLs.

        Raises:
            TransferFailed: they do not get there; they stay here, and it says where.
        """
        paths = list(finals)
        if self.elsewhere is None:
            return paths
        for path in paths:
            self._bring(path, self.elsewhere)
        return [f"{self.elsewhere}/{os.path.basename(path)}" for path in paths]

    def _bring(self, path: str, url: str) -> None:
        """Take an output to a directory elsewhere; what was computed for hours is not lost for a moment's trouble."""
        name = os.path.basename(path)
        for pause_s in (*PAUSES_S, None):
            try:
                filesystem, directory = filesystem_of(url, self._config)
                filesystem.makedirs(directory, exist_ok=True)
                aside = f"{directory}/.{name}.part"
                filesystem.put_file(path, aside)
                filesystem.mv(aside, f"{directory}/{name}")
            except Exception as error:  # file systems of others raise what they like
                if pause_s is None:
                    self._undelivered = True
                    what = error.what if isinstance(error, SeraiError) else f"{type(error).__name__}: {error}"
                    hint = f"all outputs are whole in {self.directory}: serai cp takes them there"
                    raise TransferFailed(f"{name} could not be brought to {url}: {what}", hint=hint) from error
                time.sleep(pause_s)
            else:
                return

    def close(self) -> None:
        """Remove attempts that were not accepted."""
        shutil.rmtree(self.landing, ignore_errors=True)
        held, self._held = self._held, -1
        if held >= 0:
            os.close(held)
        if self._undelivered:
            return
        if self.elsewhere is not None:
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.rmdir(self.directory)  # if nothing came of it

    def _lock_of(self, name: str, attempt: int) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault((name, attempt), threading.Lock())


def _attempt(head: dict[str, Any]) -> str:
    return str(head.get("name"))


def _number(head: dict[str, Any], key: str) -> int:
    value = head.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UsageError(f"{key}: {value!r} is no number")
    return value


def _hash(name: str, value: str) -> Any:
    """The hash of a digest: named before a colon, or told by its length."""
    name = name or {32: "md5", 40: "sha1", 64: "sha256", 128: "blake2b"}.get(len(value), "sha256")
    if name not in hashlib.algorithms_guaranteed:
        raise UsageError(f"there is no digest {name!r}")
    return hashlib.new(name, usedforsecurity=False)


def _umask() -> int:
    """The umask of this process, which only setting it tells; other threads' files are made with 0600 meanwhile."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
