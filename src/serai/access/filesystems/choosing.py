"""Finding the way that ``any://`` takes: candidates are tried in order, and what holds is remembered for a while."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import threading
from typing import TYPE_CHECKING, Any

from serai.access.filesystems.local import LocalFiles
from serai.access.filesystems.naming import url_of
from serai.access.filesystems.ssh import SshFileSystem
from serai.clock import SystemClock
from serai.errors import HostUnreachable, SeraiError
from serai.match.any_candidates import Appliance, Candidate, Decision, Proof, candidates, mount_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from serai.access.filesystems.offers import HostFacts
    from serai.session.url import Url

__all__ = ["Chooser", "Way", "forget_all"]

PROBE_S = 5.0  # for a look at a local file: a mount whose server is gone hangs
LOGIN_S = 45.0  # for a connection and a porter
REMEMBERED_S = 300.0
MOST_PROBES = 8  # that may hang at a time


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """How the files of a host are reached.

    Attributes:
        filesystem: by which.
        there: this part of a path on the host …
        here: … is replaced by this one.
        home: the home directory there, for paths below ``~``.
        at_home: whether names are told as below ``~``, because they were asked for so.
    """

    filesystem: Any
    there: str = ""
    here: str = ""
    home: str = ""
    at_home: bool = False

    def map(self, path: str) -> str:
        """A path of the host as the file system has it."""
        if self.home and path.startswith("~"):
            path = self.home + path[1:]
        return self.here + path[len(self.there) :] or "/"

    def back(self, path: str) -> str:
        """A path of the file system as it was asked for."""
        path = self.there + path[len(self.here) :] or "/"
        return "~" + path[len(self.home) :] if self.at_home and f"{path}/".startswith(f"{self.home}/") else path

    def renamed(self, found: Any) -> Any:
        """What the file system answered, with the names as they were asked for."""
        if not self.home:
            return found
        if isinstance(found, list):
            return [self.renamed(one) for one in found]
        if isinstance(found, str):
            return self.back(found) if found.startswith("/") else found
        if isinstance(found, dict):
            if isinstance(found.get("name"), str):
                return {**found, "name": self.back(found["name"])}
            return {self.back(key): self.renamed(one) for key, one in found.items()}
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    """What was chosen for a mount of the host, until when, and the device of the mount here that it goes by."""

    chosen: Candidate
    until: float
    device: int | None


class Chooser:
    """Finds ways to the files of a host.

    Args:
        url: whose, without a path.
        ssh_config: the file that ssh is given instead of the user's own.
        python: the interpreter on the host.
        auto_mkdir: whether writing makes missing directories.
    """

    def __init__(
        self, url: Url, *, ssh_config: str | None = None, python: str | None = None, auto_mkdir: bool = False
    ) -> None:
        self._url = url
        self._options: dict[str, Any] = {"ssh_config": ssh_config, "python": python, "auto_mkdir": auto_mkdir}

    def decide(self, path: str) -> Decision:
        """Try the ways to a path in their order, and remember the first that holds for its mount."""
        here = LocalFiles().host_facts()
        near = _appliances(here.host)
        first = candidates(self._asked(path, None), here, None, near)
        there: HostFacts | None = None
        silent = "it is not asked"
        meant = any(one.is_meant(self._url) for one in near)
        if not meant and (not first[0].url.startswith("local:") or first[0].proof is not Proof.ANSWER):
            silent = ""
            try:
                there = _within(LOGIN_S, self._ssh().host_facts)
            except (SeraiError, OSError) as error:
                silent = _shown(error)
        tried: list[Candidate] = []
        chosen: Candidate | None = None
        asked = self._asked(path, there)
        for one in candidates(asked, here, there, near):
            if chosen is not None:
                tried.append(dataclasses.replace(one, outcome="not needed"))
                continue
            trouble = self._try(one, asked.path, there, silent)
            tried.append(dataclasses.replace(one, outcome=trouble or "chosen"))
            if not trouble:
                chosen = tried[-1]
        decision = Decision(self._url_of(path), tuple(tried), chosen)
        if chosen is not None:
            point = "" if there is None or (mount := mount_of(asked.path, there.mounts)) is None else mount.point
            if _is_store(chosen):  # it may serve a part of a mount
                point = f"store:{chosen.there}"
            with _lock:
                _ways[self._key(point)] = _Known(chosen, _clock.now() + REMEMBERED_S, _device(chosen.here))
                _known[self._key("")] = there
        return decision

    def _key(self, point: str) -> tuple[Any, ...]:
        environment = os.environ.get("SERAI_SSH_CONFIG")
        return (self._url.user, self._url.host, self._url.port, self._options["ssh_config"], environment, point)

    def _asked(self, path: str, there: HostFacts | None) -> Url:
        home = os.path.expanduser("~") if there is None else there.home
        return dataclasses.replace(self._url, path=home + path[1:] if path.startswith("~") else path)

    def _ssh(self) -> SshFileSystem:
        return SshFileSystem(self._url.host or "", self._url.user, self._url.port, **self._options)

    def _local(self) -> LocalFiles:
        return LocalFiles(auto_mkdir=self._options["auto_mkdir"])

    def _try(self, one: Candidate, path: str, there: HostFacts | None, silent: str) -> str:
        """Why a way cannot be taken; empty if it can."""
        known = there is not None
        if one.url.startswith("ssh:"):
            return silent
        if _is_store(one):
            return self._looked(lambda: self._compare_store(one, path, known=known))
        if not one.url.startswith("local:"):
            return "nothing here goes this way"
        if one.proof is Proof.ANSWER:
            return ""
        local = one.url.removeprefix("local:")
        if not known and one.proof is not Proof.NAMED:
            return f"whether it holds the same files cannot be seen: {silent}"
        return self._looked(lambda: self._compare(self._local(), local, path, one.proof, known=known))

    @staticmethod
    def _looked(look: Callable[[], str]) -> str:
        """What a look finds wrong, within its deadline."""
        try:
            found: str = _within(PROBE_S, look)
        except (SeraiError, OSError, ImportError) as error:
            return _shown(error)
        return found

    def _url_of(self, path: str) -> str:
        return f"any://{path}" if self._url.host is None else url_of(self._url, path)

    def _store(self, one: Candidate) -> tuple[Any, str]:
        """The file system of an appliance, and the path in it."""
        from serai.access.filesystems.store import StoreFileSystem  # noqa: PLC0415 - an extra

        where = StoreFileSystem._get_kwargs_from_urls(one.url)  # noqa: SLF001 - fsspec's own
        made = StoreFileSystem(**where, auto_mkdir=self._options["auto_mkdir"])
        return made, made._strip_protocol(one.url)  # noqa: SLF001 - the same

    def _compare_store(self, one: Candidate, path: str, *, known: bool) -> str:
        """Whether an appliance has the file that the host has; where the host is not asked, whether it answers."""
        ours, inside = self._store(one)
        if known:
            return self._compare(ours, inside, path, Proof.SAME_FILE, known=True)
        ours.info("/")
        return ""

    def _compare(self, ours: Any, local: str, path: str, proof: Proof, *, known: bool) -> str:
        """Whether a path, or the deepest directory above it that is there, is the same file on both sides."""
        if not known:
            return "" if ours.exists(local) else f"{local} is not there, and the host cannot be asked"
        ssh = self._ssh()
        while True:
            try:
                theirs = ssh.info(path)
                break
            except FileNotFoundError:
                path, local = ssh._parent(path), ssh._parent(local)  # noqa: SLF001 - fsspec's own
        try:
            mine = ours.info(local)
        except FileNotFoundError:
            return f"{local} is not there"
        keys = ["type", "ino"] if proof is Proof.SAME_INODE else ["type"]
        if any(mine[key] != theirs[key] for key in keys) or int(mine["mtime"]) != int(theirs["mtime"]):
            return f"{local} is not the same file as there"
        return (
            f"{local} has another size than there"
            if theirs["type"] == "file" and mine["size"] != theirs["size"]
            else ""
        )

    def way(self, *paths: str) -> Way:
        """How paths are reached, from what is remembered or found out now.

        Raises:
            HostUnreachable: no way can be taken; each is told with the reason.
        """
        taken = [self._chosen(path) for path in paths]
        one = taken[0]
        if one.url.startswith("ssh:") or any((each.there, each.here) != (one.there, one.here) for each in taken):
            return Way(self._ssh())  # paths on different mounts: only the host has both
        with _lock:
            facts = _known.get(self._key(""))
        at_home = paths[0].startswith("~")
        if _is_store(one):
            return Way(self._store(one)[0], one.there, one.here, "/" if facts is None else facts.home, at_home)
        home = os.path.expanduser("~") if facts is None else facts.home
        return Way(self._local(), one.there, one.here, home, at_home)

    def _chosen(self, path: str) -> Candidate:
        key = self._key("")
        with _lock:
            facts = _known.get(key)
            mount = None if facts is None else mount_of(self._asked(path, facts).path, facts.mounts)
            known = _ways.get(self._key("" if mount is None else mount.point))
            for one in (found for key, found in _ways.items() if key[:-1] == self._key("")[:-1]):
                if _is_store(one.chosen) and f"{path}/".startswith(f"{one.chosen.there}/"):
                    known = one
        if known is not None and known.until > _clock.now():
            if _device(known.chosen.here) == known.device:
                return known.chosen
            self.forget()
        decision = self.decide(path)
        if decision.chosen is None:
            raise HostUnreachable(
                f"no way leads to {decision.url}",
                host=self._url.host,
                tried=tuple(f"{one.url} ({one.reason}): {one.outcome}" for one in decision.candidates),
                hint=f"serai explain {decision.url}",
            )
        return decision.chosen

    def forget(self) -> None:
        """Decide anew when next asked."""
        with _lock:
            for key in [one for one in _ways if one[:-1] == self._key("")[:-1]]:
                del _ways[key]


def _is_store(one: Candidate) -> bool:
    return one.url.startswith("store:")


def _appliances(here: str) -> list[Appliance]:
    """What the adverts tell of; nothing where they cannot be asked, since there are other ways."""
    from serai.access.stores.nearby import known_appliances  # noqa: PLC0415 - adverts need a database

    try:
        found: list[Appliance] = _within(PROBE_S, lambda: known_appliances(here))
    except (SeraiError, OSError):
        return []
    return found


def _device(path: str) -> int | None:
    """What tells a mount from the directory that it covers."""
    if not path:
        return None
    try:
        return os.stat(path).st_dev
    except OSError:
        return -1


def forget_all() -> None:
    """Forget every decision and what hosts said of themselves."""
    with _lock:
        _ways.clear()
        _known.clear()


def _within(deadline_s: float, act: Callable[[], Any]) -> Any:
    """Do something in a thread that may be left behind when it hangs.

    Raises:
        TimeoutError: it took longer.
    """
    if not _probes.acquire(blocking=False):
        raise TimeoutError(f"{MOST_PROBES} looks at files hang already")
    result: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            result.set_result(act())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            result.set_exception(error)
        finally:
            _probes.release()

    threading.Thread(target=run, name="probe", daemon=True).start()
    try:
        return result.result(deadline_s)
    except TimeoutError:
        if result.done():
            raise
        raise TimeoutError(f"no answer within {deadline_s:g} s") from None


_lock = threading.Lock()
_ways: dict[tuple[Any, ...], _Known] = {}
_known: dict[tuple[Any, ...], HostFacts | None] = {}  # what hosts said of themselves
_probes = threading.BoundedSemaphore(MOST_PROBES)
_clock = SystemClock()


def _shown(error: Exception) -> str:
    """Why a way is none, for beside its URL, which names the host."""
    return (error.what if isinstance(error, SeraiError) else str(error)).partition("\n")[0] or type(error).__name__
