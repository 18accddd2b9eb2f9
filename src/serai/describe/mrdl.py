"""MRDL, the published XML of SAGA's MapReduce, read strictly: all mistakes at once, each with its line.

::

    <MRDL>
      <MapReduceSession name="wordcount" version="1.0" user="me" priority="1" experimentID="1" eventLevel="info">
        <OrchestratorDB><Host>sqlite:adverts.db</Host></OrchestratorDB>
        <TargetHosts>
          <Host arch="x86_64" OS="linux" workers="2">ssh://lab1</Host>
        </TargetHosts>
        <ApplicationBinaries>
          <BinaryImage arch="x86_64" OS="linux" extraArgs="--fold">./wordcount</BinaryImage>
        </ApplicationBinaries>
        <OutputPrefix>out/wc-</OutputPrefix>
        <ApplicationFiles><File>texts/*.txt</File></ApplicationFiles>
      </MapReduceSession>
    </MRDL>

``workers`` (or ``slots``) of a host, and of the session ``partitions`` (or ``Reducers``), ``combine`` and ``skip`` are
ours; the rest is SAGA's (S. Sehgal et al., *Understanding application-level interoperability*, 2011, and its MapReduce
sources). An image is called with its extra arguments and then ``map`` or ``reduce``: lines in, ``key TAB value`` lines
out. The original linked a C++ library instead.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from xml.parsers import expat

from serai.describe.mapreduce import (
    ANY,
    HAS_SCHEME,
    MOST_PARTITIONS,
    MOST_SKIPPED,
    MOST_WORKERS,
    Binaries,
    BinaryImage,
    HostSpec,
    Mistakes,
    Session,
    adverts_url,
    arch_name,
    below,
    nearest,
    os_name,
    read_bytes,
    split_prefix,
    whole_number,
    worker_site,
)
from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEEPEST = 16
MOST_ELEMENTS = 100_000

_SESSION = "MapReduceSession"
_FACTS = ("version", "user", "priority", "experimentID", "eventLevel")
_HOST_COUNTS = ("workers", "slots")
_PARTITIONS = ("partitions", "Reducers")

# For each element: its attributes, and the elements in it. "Host" has two meanings, by what it stands in.
_FORM: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "MRDL": ((), (_SESSION,)),
    _SESSION: (
        ("name", *_FACTS, *_PARTITIONS, "combine", "skip"),
        ("OrchestratorDB", "TargetHosts", "ApplicationBinaries", "OutputPrefix", "ApplicationFiles"),
    ),
    "OrchestratorDB": ((), ("Host",)),
    "TargetHosts": ((), ("Host",)),
    "ApplicationBinaries": ((), ("BinaryImage",)),
    "ApplicationFiles": ((), ("File",)),
    "OutputPrefix": ((), ()),
    "OrchestratorDB/Host": ((), ()),
    "TargetHosts/Host": (("arch", "OS", *_HOST_COUNTS), ()),
    "BinaryImage": (("arch", "OS", "extraArgs"), ()),
    "File": ((), ()),
}


@dataclass(slots=True)
class _Element:
    name: str
    attributes: dict[str, str]
    line: int
    children: list[_Element] = field(default_factory=list)
    text: str = ""

    def all(self, name: str) -> list[_Element]:
        return [child for child in self.children if child.name == name]


def read_mrdl(path: str) -> Session:
    """Reads a session.

    Args:
        path: of the file; paths in it are relative to its directory.

    Raises:
        UsageError: it cannot be read or has mistakes; all are named, with their lines.
    """
    return _Reader(path).session(_tree(path, read_bytes(path)))


def _tree(path: str, raw: bytes) -> _Element:
    """Parses XML without document types, so without entities of its own: neither bombs nor other files."""
    parser = expat.ParserCreate()
    open_: list[_Element] = []
    roots: list[_Element] = []
    count = 0

    def refuse(what: str) -> UsageError:
        return UsageError(f"{path}, line {parser.CurrentLineNumber}: {what}")

    def doctype(*_: object) -> None:
        raise refuse("a document type (<!DOCTYPE …>) is not taken: it can name other files and grow without end")

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if len(open_) >= DEEPEST or count > MOST_ELEMENTS:
            raise refuse(f"more than {DEEPEST} elements in each other, or more than {MOST_ELEMENTS} in all")
        element = _Element(name, attributes, parser.CurrentLineNumber)
        (open_[-1].children if open_ else roots).append(element)
        open_.append(element)

    def text(data: str) -> None:
        open_[-1].text += data

    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _name: open_.pop()
    parser.CharacterDataHandler = text
    try:
        parser.Parse(raw, True)  # noqa: FBT003 - it takes no names
    except expat.ExpatError as error:
        inside = f"<{open_[-1].name}> of line {open_[-1].line} is open; " if open_ else ""
        raise UsageError(
            f"{path}, line {error.lineno}: not XML: {expat.ErrorString(error.code)}",
            hint=f"{inside}write & as &amp; and < as &lt;; every <Element> ends with </Element>",
        ) from error
    except (LookupError, ValueError) as error:  # an encoding that nobody knows, or a NUL
        raise UsageError(f"{path}: not XML: {error}") from error
    return roots[0]


class _Reader:
    def __init__(self, path: str) -> None:
        self.path = path
        self.home = os.path.dirname(path)
        self.mistakes = Mistakes(path)

    def session(self, root: _Element) -> Session:
        if root.name != "MRDL":
            raise UsageError(
                f"{self.path}, line {root.line}: the root is <{root.name}>", hint="an MRDL file begins with <MRDL>"
            )
        self._form(root, "MRDL")
        session = self._only(root, _SESSION)
        if session is None:
            self.mistakes.check()
            raise UsageError(f"{self.path}: there is no <{_SESSION}>")
        name = session.attributes.get("name", "").strip()
        if not name:
            self.mistakes.add(session.line, f"<{_SESSION}> has no name", 'write name="…" in it')
        self._priority(session)
        partitions = self._count(session, _PARTITIONS, MOST_PARTITIONS)
        images = self._images(session)
        combine = self._yes(session, "combine")
        skip = self._count(session, ("skip",), MOST_SKIPPED, 0)
        hosts = self._hosts(session, [image for _, image in images])
        inputs = self._inputs(session)
        output, prefix = self._output(session)
        adverts = self._adverts(session)
        self.mistakes.check()
        return Session(
            path=self.path,
            name=name or Path(self.path).stem,
            program=Binaries(tuple(image for _, image in images), combine),
            hosts=tuple(hosts),
            inputs=inputs,
            output=output,
            prefix=prefix,
            partitions=partitions,
            adverts=adverts,
            skip=skip or 0,
            facts={key: session.attributes[key] for key in _FACTS if session.attributes.get(key)},
        )

    def _form(self, element: _Element, kind: str) -> None:
        """Notes attributes, elements and text that do not belong where they are."""
        attributes, inner = _FORM[kind]
        for name in element.attributes:
            if name not in attributes:
                self.mistakes.add(element.line, f"<{element.name}> has no attribute {name}", nearest(name, attributes))
        if inner and element.text.strip():
            self.mistakes.add(element.line, f"<{element.name}> holds text: {element.text.strip()[:40]!r}")
        for child in element.children:
            below_ = f"{element.name}/{child.name}"
            if child.name not in inner:
                hint = nearest(child.name, inner) if inner else "it holds text only"
                self.mistakes.add(child.line, f"<{child.name}> does not belong into <{element.name}>", hint)
            else:
                self._form(child, below_ if below_ in _FORM else child.name)

    def _only(self, parent: _Element, name: str, *, needed: bool = True) -> _Element | None:
        found = parent.all(name)
        for more in found[1:]:
            self.mistakes.add(more.line, f"a second <{name}>", f"the first is in line {found[0].line}")
        if not found and needed:
            self.mistakes.add(parent.line, f"<{parent.name}> has no <{name}>")
        return found[0] if found else None

    def _text(self, element: _Element) -> str | None:
        text = element.text.strip()
        if not text:
            self.mistakes.add(element.line, f"<{element.name}> is empty")
        return text or None

    def _count(self, element: _Element, names: tuple[str, ...], most: int, least: int = 1) -> int | None:
        given = [name for name in names if name in element.attributes]
        if len(given) > 1:
            self.mistakes.add(element.line, f"both {given[0]} and {given[1]} are given: they mean the same")
        if not given:
            return None
        value: int | None = self.mistakes.take(
            element.line, given[0], whole_number(most, least), element.attributes[given[0]].strip()
        )
        return value

    def _yes(self, element: _Element, name: str) -> bool:
        value = element.attributes.get(name, "no").strip().lower()
        if value not in {"yes", "no", "true", "false", "1", "0"}:
            self.mistakes.add(element.line, f"{name}: expected yes or no, not {value!r}")
        return value in {"yes", "true", "1"}

    def _priority(self, session: _Element) -> None:
        text = session.attributes.get("priority", "0").strip()
        if text and not text.lstrip("+-").isdecimal():
            self.mistakes.add(session.line, f"priority: expected a whole number, not {text!r}")

    def _images(self, session: _Element) -> list[tuple[int, BinaryImage]]:
        parent = self._only(session, "ApplicationBinaries")
        elements = parent.all("BinaryImage") if parent is not None else []
        if parent is not None and not elements:
            self.mistakes.add(parent.line, "<ApplicationBinaries> has no <BinaryImage>")
        images = []
        for element in elements:
            text = self._text(element)
            place = self._place(element)
            arguments = self.mistakes.take(element.line, "extraArgs", _words, element.attributes.get("extraArgs", ""))
            path = None if text is None else self.mistakes.take(element.line, "", self._here, text)
            if path is not None and arguments is not None:
                images.append((element.line, BinaryImage(path, *place, arguments)))
        return images

    def _here(self, text: str) -> str:
        """An image's path; it is this machine that sends it."""
        for form in ("file://localhost/", "file:///", "local:///", "file:/", "local:/", "any://localhost/"):
            if text.startswith(form):
                return "/" + text[len(form) :]
        if HAS_SCHEME.match(text):
            raise UsageError(f"the image {text} is not on this machine", hint="name a path, or file:///PATH")
        return below(self.home, text)

    def _place(self, element: _Element) -> tuple[str, str]:
        """The OS and arch of a host or an image; both are required."""
        for name in ("arch", "OS"):
            if not element.attributes.get(name, "").strip():
                self.mistakes.add(
                    element.line, f"<{element.name}> has no {name}", f'write {name}="…" in it, or {name}="any"'
                )
        return os_name(element.attributes.get("OS") or ANY), arch_name(element.attributes.get("arch") or ANY)

    def _hosts(self, session: _Element, images: list[BinaryImage]) -> list[HostSpec]:
        parent = self._only(session, "TargetHosts")
        elements = parent.all("Host") if parent is not None else []
        if parent is not None and not elements:
            self.mistakes.add(parent.line, "<TargetHosts> has no <Host>")
        hosts = []
        for element in elements:
            text = self._text(element)
            os_, arch = self._place(element)
            workers = self._count(element, _HOST_COUNTS, MOST_WORKERS)
            site = None if text is None else self.mistakes.take(element.line, "", worker_site, text)
            if images and not any(image.fits(os_, arch) for image in images):
                there = ", ".join(sorted({f"{image.os} {image.arch}" for image in images}))
                self.mistakes.add(
                    element.line, f"no <BinaryImage> runs on {os_} {arch}", f"there are images for {there}"
                )
            if site is not None:
                hosts.append(HostSpec(site, workers or site.slots, os_, arch))
        return hosts

    def _inputs(self, session: _Element) -> tuple[str, ...]:
        parent = self._only(session, "ApplicationFiles")
        elements = parent.all("File") if parent is not None else []
        if parent is not None and not elements:
            self.mistakes.add(parent.line, "<ApplicationFiles> has no <File>")
        texts = [self._text(element) for element in elements]
        return tuple(below(self.home, text) for text in texts if text is not None)

    def _output(self, session: _Element) -> tuple[str | None, str]:
        element = self._only(session, "OutputPrefix")
        text = None if element is None else self._text(element)
        if text is None:
            return None, ""
        directory, prefix = split_prefix(text)
        return below(self.home, directory), prefix

    def _adverts(self, session: _Element) -> str | None:
        parent = self._only(session, "OrchestratorDB", needed=False)
        host = None if parent is None else self._only(parent, "Host")
        text = None if host is None else self._text(host)
        if host is None or text is None:
            return None
        url: str | None = self.mistakes.take(host.line, "", lambda given: adverts_url(given, self.home), text)
        return url


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}", hint="close every quote") from error
