"""What a MapReduce run is asked for: one frozen description, which MRDL (`describe.mrdl`), TOML and Python all give."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serai.describe.poolfile import SiteSpec, read_pool_file, site_from_url
from serai.errors import UsageError
from serai.session.url import Url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from serai.describe.tomlplaces import Key

ANY = "any"
MOST_WORKERS = 1_000  # of one host
MOST_PARTITIONS = 10_000
MOST_SKIPPED = 10_000  # as many as there may be splits
LARGEST_FILE_BYTES = 4 * 1024**2
HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:local|file|fork|sqlite):", re.ASCII)
SCHEMES = ("local", "ssh")  # over which workers are started

_OS_NAMES = {"gnu/linux": "linux", "macos": "darwin", "osx": "darwin", "mac os x": "darwin", "*": ANY, "unix": ANY}
_ARCH_NAMES = {
    **dict.fromkeys(("amd64", "x64", "x86-64", "em64t"), "x86_64"),
    **dict.fromkeys(("x86", "i86", "ia32", "i486", "i586", "i686"), "i386"),
    **dict.fromkeys(("arm64", "armv8", "armv8l"), "aarch64"),
    **dict.fromkeys(("armv6l", "armv7", "armv7l", "armhf"), "arm"),
    "powerpc64le": "ppc64le",
    "*": ANY,
}


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A host that workers are started on.

    Attributes:
        site: the way in.
        workers: how many; None for as many as the host has cores.
        os: its operating system as `os_name` gives it; "any" when it is for the host to say.
        arch: its processors, as `arch_name` gives them, or "any".
    """

    site: SiteSpec
    workers: int | None = None
    os: str = ANY
    arch: str = ANY


@dataclass(frozen=True, slots=True)
class BinaryImage:
    """An executable that maps and reduces: called with its arguments and then ``map``, ``reduce`` or ``combine``.

    Attributes:
        path: where it is: a path of this machine.
        os: the system that it runs on, or "any".
        arch: the processors that it runs on, or "any".
        arguments: before the word.
    """

    path: str
    os: str = ANY
    arch: str = ANY
    arguments: tuple[str, ...] = ()

    def fits(self, os_: str, arch: str) -> bool:
        """Whether it may run on a host; a host's "any" may turn out to be anything."""
        return _meets(self.os, os_) and _meets(self.arch, arch)


@dataclass(frozen=True, slots=True)
class Commands:
    """Streaming: shell commands with lines on standard input and ``key TAB value`` lines on standard output.

    Attributes:
        mapper: gets the lines of its split.
        reducer: gets lines sorted by key; or ``sum`` or ``count``, for which no command is run.
        combiner: like the reducer, on the map's side; None for none.
        send: files and directories that travel to the directory in which the commands run.
        home: the directory that files named in the commands themselves are meant from; these travel too.
    """

    mapper: str
    reducer: str
    combiner: str | None = None
    send: tuple[str, ...] = ()
    home: str = ""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Executables by system and processor, as in MRDL.

    Attributes:
        images: in the order of the file; the first that fits a host runs there.
        combine: whether it is also called with ``combine``, on the map's side.
    """

    images: tuple[BinaryImage, ...]
    combine: bool = False

    def image_for(self, os_: str, arch: str) -> BinaryImage | None:
        """The image for a host, None when there is none."""
        return next((image for image in self.images if image.fits(os_, arch)), None)


@dataclass(frozen=True, slots=True)
class Session:
    """A MapReduce run as it was asked for.

    Attributes:
        path: the file that said so; "" when it was no file.
        name: for people.
        program: what maps and reduces.
        hosts: where workers are started; this machine when there is none.
        inputs: paths or URLs of files, directories or globs.
        output: a path or URL of the directory of outputs; None: they go back to the caller.
        prefix: what the names of outputs begin with, before ``part-00000``.
        partitions: how many outputs; None for as many as workers are asked for.
        adverts: the URL of the advert service; None for the user's own.
        skip: so many splits may be left out when they fail for good.
        facts: what else the file says (MRDL: version, user, priority, experimentID, eventLevel); for the run's ad.
    """

    path: str
    name: str
    program: Commands | Binaries
    hosts: tuple[HostSpec, ...]
    inputs: tuple[str, ...]
    output: str | None = None
    prefix: str = ""
    partitions: int | None = None
    adverts: str | None = None
    skip: int = 0
    facts: Mapping[str, str] = field(default_factory=dict, hash=False)


def os_name(text: str) -> str:
    """The one name of an operating system: ``Linux`` and ``GNU/Linux`` are ``linux``."""
    name = text.strip().lower()
    return _OS_NAMES.get(name, name)


def arch_name(text: str) -> str:
    """The one name of processors: ``amd64`` is ``x86_64``, ``arm64`` is ``aarch64``, ``i686`` is ``i386``."""
    name = text.strip().lower()
    return _ARCH_NAMES.get(name, name)


def _meets(image: str, host: str) -> bool:
    return ANY in {image, host} or image == host


def worker_site(text: str) -> SiteSpec:
    """Reads the URL of a host for workers; the published forms ``fork://localhost`` and ``any://host`` too.

    ``fork:`` is this machine; ``any://`` is this machine when it names localhost, and ssh otherwise.

    Raises:
        UsageError: it is no URL, or workers cannot be started that way.
    """
    if not HAS_SCHEME.match(text):
        meant = "local:" if text in {"local", "localhost", ""} else f"ssh://{text}"
        raise UsageError(f"{text!r} is no URL", hint=f"did you mean {meant}?")
    url = Url.parse(text)
    here = url.host in {None, "localhost", "127.0.0.1", "::1"}
    scheme = {"fork": "local", "file": "local"}.get(url.scheme, url.scheme)
    if scheme == ANY:
        scheme = "local" if here else "ssh"
    if scheme not in SCHEMES:
        raise UsageError(
            f"workers cannot be started over {url.scheme}:", hint="name hosts as ssh://HOST, and this machine as local:"
        )
    if scheme == "local" and not here:
        raise UsageError(f"{text}: {url.scheme}: is this machine", hint=f"did you mean ssh://{url.host}?")
    path = "" if url.path == "/" else url.path
    return site_from_url(str(replace(url, scheme=scheme, host=None if scheme == "local" else url.host, path=path)))


def adverts_url(text: str, home: str = "") -> str:
    """Reads the URL of an advert service: a database.

    ``sqlite:`` is the user's own, ``sqlite:PATH`` and ``postgresql://…`` are what they say; ``advert://HOST/…`` and a
    bare host name, the published forms, mean the PostgreSQL database ``serai`` there.

    Args:
        text: the URL.
        home: the directory that a relative PATH is meant from.

    Raises:
        UsageError: it is none of these.
    """
    if not HAS_SCHEME.match(text):
        if not re.fullmatch(r"[\w.-]+(:\d+)?", text):
            raise UsageError(
                f"{text!r} is neither a URL nor a host", hint="write sqlite:PATH or postgresql://HOST/NAME"
            )
        text = f"advert://{text}"
    scheme = text.partition(":")[0].lower()
    if scheme == "sqlite":
        path = text.partition(":")[2]
        if not path:
            return "sqlite:"
        if not path.strip("/"):
            raise UsageError(f"{text} names no file", hint="write sqlite:PATH, or sqlite:///PATH for one from the root")
        return text if path.startswith("/") else f"sqlite:{os.path.join(home, path)}"
    if scheme not in {"postgresql", "postgres", "advert"}:
        raise UsageError(f"there is no advert service over {scheme}:", hint="known: sqlite:, postgresql:, advert:")
    url = Url.parse(text)  # which refuses passwords
    if url.host is None:
        raise UsageError(f"{text} names no host", hint=f"write {scheme}://HOST/NAME")
    name = url.path.strip("/") or "serai"
    return str(replace(url, scheme="postgresql", path=f"/{name}"))


def below(directory: str, text: str) -> str:
    """A path that a file names, from that file's directory; URLs and absolute paths stay."""
    return text if HAS_SCHEME.match(text) else os.path.normpath(os.path.join(directory, text))


def split_prefix(text: str) -> tuple[str, str]:
    """Takes an output prefix apart: the directory, and what names in it begin with (``out/wc-``: ``out``, ``wc-``)."""
    head, slash, name = text.rpartition("/")
    if not slash:
        return ".", text
    return (head or "/"), name


def read_bytes(path: str) -> bytes:
    """Reads a description, which is never large.

    Raises:
        UsageError: it cannot be read, or is too large.
    """
    try:
        with open(path, "rb") as stream:
            raw = stream.read(LARGEST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if len(raw) > LARGEST_FILE_BYTES:
        raise UsageError(f"{path}: larger than {LARGEST_FILE_BYTES} bytes, which no description is")
    return raw


@dataclass(slots=True)
class Mistakes:
    """All that is wrong with a file, to be said at once."""

    path: str
    found: list[tuple[int, str, str | None]] = field(default_factory=list)

    def add(self, line: int, what: str, hint: str | None = None) -> None:
        """Note one."""
        self.found.append((line, what, hint))

    def take(self, line: int, about: str, convert: Callable[[Any], Any], value: object) -> Any:
        """Converts a value; None when it is wrong, which is noted."""
        try:
            return convert(value)
        except UsageError as error:
            self.add(line, f"{about}: {error.what}" if about else error.what, error.hint)
            return None

    def check(self) -> None:
        """Raise what was found, if anything was.

        Raises:
            UsageError: it names each line.
        """
        found = sorted(self.found, key=lambda one: one[0])
        if not found:
            return
        if len(found) == 1:
            line, what, hint = found[0]
            raise UsageError(f"{self.path}, line {line}: {what}", hint=hint)
        lines = [f"  line {line}: {what}" + (f" ({hint})" if hint else "") for line, what, hint in found]
        raise UsageError("\n".join([f"{self.path} has {len(found)} mistakes", *lines]))


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint for a name that is not known."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else "known here: " + (", ".join(known) or "nothing")


def whole_number(most: int, least: int = 1) -> Callable[[object], int]:
    """Makes a reader of whole numbers; of texts too."""

    def convert(value: object) -> int:
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise UsageError(f"expected a whole number from {least} to {most}")
        return value

    return convert


# ---- TOML


def read_toml(path: str) -> Session:
    """Reads a session in TOML.

    Raises:
        UsageError: it has mistakes; all are named, with their lines.
    """
    import tomllib  # noqa: PLC0415 - beside its use

    from serai.describe.tomlplaces import places_of  # noqa: PLC0415 - as above

    raw = read_bytes(path)
    try:
        text = raw.decode("utf-8").replace("\r\n", "\n")
        data = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {line}: not UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: {error}", hint="quote every text, and write lists as [1, 2]") from error
    return _Toml(path, places_of(text)).session(data)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise UsageError("expected a text", hint='write it in quotes: "…"')
    return value


def _texts(value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values:
        raise UsageError("expected a list of texts", hint='write ["a", "b"]')
    return tuple(_text(one) for one in values)


_KEYS: Mapping[str, Callable[[object], object]] = {
    "name": _text,
    "mapper": _text,
    "reducer": _text,
    "combiner": _text,
    "inputs": _texts,
    "output": _text,
    "partitions": whole_number(MOST_PARTITIONS),
    "send": _texts,
    "adverts": _text,
    "skip": whole_number(MOST_SKIPPED, 0),
    "pool": _text,
}
_NEEDED = ("mapper", "reducer", "inputs")
_HOST_KEYS = ("url", "workers", "python", "scratch", "ssh_config")


class _Toml:
    """Reads one file, noting all of its mistakes."""

    def __init__(self, path: str, lines: Mapping[Key, int]) -> None:
        self.path = path
        self.home = os.path.dirname(path)
        self.lines = lines
        self.mistakes = Mistakes(path)

    def line(self, *at: str | int) -> int:
        return next((self.lines[at[:depth]] for depth in range(len(at), 0, -1) if at[:depth] in self.lines), 1)

    def session(self, data: Mapping[str, object]) -> Session:
        for key in data:
            if key not in {"mapreduce", "hosts"}:
                self.mistakes.add(self.line(key), f"{key}: unknown table", nearest(key, ("mapreduce", "hosts")))
        table = data.get("mapreduce")
        if not isinstance(table, dict):
            self.mistakes.add(self.line("mapreduce"), "there is no table [mapreduce]", "write [mapreduce] on a line")
            table = dict.fromkeys(_NEEDED)
        said = self._settings(table)
        if said.get("adverts"):
            line = self.line("mapreduce", "adverts")
            said["adverts"] = self.mistakes.take(
                line, "adverts", lambda url: adverts_url(url, self.home), said["adverts"]
            )
        hosts = self._hosts(data.get("hosts", []))
        if said.get("pool"):
            hosts += self._pool(said["pool"])
        self.mistakes.check()
        return Session(
            path=self.path,
            name=said.get("name") or Path(self.path).stem,
            program=Commands(
                said["mapper"],
                said["reducer"],
                said.get("combiner"),
                tuple(below(self.home, one) for one in said.get("send") or ()),
                self.home,
            ),
            hosts=tuple(hosts) or (HostSpec(site_from_url("local:")),),
            inputs=tuple(below(self.home, one) for one in said["inputs"]),
            output=None if said.get("output") is None else below(self.home, said["output"]),
            partitions=said.get("partitions"),
            adverts=said.get("adverts"),
            skip=said.get("skip") or 0,
        )

    def _settings(self, table: Mapping[str, object]) -> dict[str, Any]:
        said: dict[str, Any] = {}
        for key, value in table.items():
            if key not in _KEYS:
                self.mistakes.add(self.line("mapreduce", key), f"{key}: unknown key", nearest(key, tuple(_KEYS)))
            elif value is not None:
                said[key] = self.mistakes.take(self.line("mapreduce", key), key, _KEYS[key], value)
        for key in _NEEDED:
            if key not in table:
                self.mistakes.add(self.line("mapreduce"), f"there is no {key}", f"write {key} = … below [mapreduce]")
        return said

    def _hosts(self, tables: object) -> list[HostSpec]:
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self.mistakes.add(
                self.line("hosts"), "hosts: expected a list of tables", "write [[hosts]], with two brackets"
            )
            return []
        return [host for index, table in enumerate(tables) if (host := self._host(index, table)) is not None]

    def _host(self, index: int, table: Mapping[str, object]) -> HostSpec | None:
        for key in table:
            if key not in _HOST_KEYS:
                self.mistakes.add(self.line("hosts", index, key), f"{key}: unknown key", nearest(key, _HOST_KEYS))
        if "url" not in table:
            self.mistakes.add(self.line("hosts", index), "the host has no url", 'write url = "ssh://HOST"')
            return None
        site = self.mistakes.take(
            self.line("hosts", index, "url"), "url", lambda value: worker_site(_text(value)), table["url"]
        )
        workers = None
        if "workers" in table:
            line = self.line("hosts", index, "workers")
            workers = self.mistakes.take(line, "workers", whole_number(MOST_WORKERS), table["workers"])
        texts = {
            key: self.mistakes.take(self.line("hosts", index, key), key, _text, table[key])
            for key in ("python", "scratch", "ssh_config")
            if key in table
        }
        if site is None:
            return None
        config = texts.get("ssh_config")
        if config and not config.startswith("~"):
            texts["ssh_config"] = os.path.join(self.home, config)
        return HostSpec(replace(site, **texts), workers or site.slots)

    def _pool(self, named: str) -> list[HostSpec]:
        try:
            return [host_of(site) for site in read_pool_file(below(self.home, named)).sites]
        except UsageError as error:
            self.mistakes.add(self.line("mapreduce", "pool"), f"pool: {error.what}", error.hint)
            return []


def host_of(site: SiteSpec) -> HostSpec:
    """A pool's site as a host for workers, one to a slot.

    Raises:
        UsageError: workers cannot be started there.
    """
    if site.url.scheme not in SCHEMES:
        raise UsageError(
            f"workers of MapReduce cannot be started at {site.url}", hint="they run on ssh:// hosts and on local:"
        )
    return HostSpec(site, site.slots)
