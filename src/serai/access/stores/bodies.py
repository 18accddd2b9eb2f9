"""What goes between an appliance and its clients: digests beside a body, and many small files in one.

Of digests, which travel in the fields of RFC 9530, there are two kinds. ``xxh3-128`` is taken of every byte that
goes between an appliance and Serai's clients: it shows whatever went wrong on the way or on a disk, and costs next to
nothing (0.03 s/GB, where SHA-256 costs 0.55), but somebody who wants to can make another file with the same one.
``sha-256`` names files by what is in them, and is taken where somebody asks for it. The first is not in RFC 9530's
registry; whoever does not know it passes over it, as told there.

A bundle is an index in JSON behind its length, then the bytes of files, one after another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
from typing import TYPE_CHECKING, Any

import xxhash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Digests = Mapping[str, bytes]  # by kind

__all__ = [
    "MOST_BYTES",
    "MOST_FILES",
    "SHA256",
    "WANTED",
    "XXH3",
    "bundle",
    "bundle_head",
    "digest_fields",
    "new_check",
    "said_digests",
    "told_check",
    "unbundle",
    "wants_sha256",
    "xxh3_of",
]

SHA256, XXH3 = "sha-256", "xxh3-128"
LENGTHS = {SHA256: 32, XXH3: 16}  # bytes
WANTED = {"Want-Repr-Digest": f"{SHA256}=1"}
MOST_FILES = 250
MOST_BYTES = 16 << 20  # of a bundle; a file that alone has more goes alone
MOST_INDEX = 2 << 20  # bytes of text, which become many times as many in memory
_LENGTH = struct.Struct(">I")


def new_check() -> Any:
    """What takes the digest of all that travels, with the face of hashlib's."""
    return xxhash.xxh3_128()


def xxh3_of(data: bytes | bytearray | memoryview) -> bytes:
    """The digest of what travels in one."""
    return xxhash.xxh3_128_digest(data)


def digest_fields(digests: Digests) -> dict[str, str]:
    """Headers that tell digests: RFC 9530's, and of SHA-256 RFC 3230's for older programs."""
    text = {kind: base64.b64encode(digest).decode("ascii") for kind, digest in digests.items()}
    if not text:
        return {}
    fields = {"Repr-Digest": ", ".join(f"{kind}=:{one}:" for kind, one in text.items())}
    return fields | ({"Digest": f"SHA-256={text[SHA256]}"} if SHA256 in text else {})


def said_digests(headers: Mapping[str, str]) -> dict[str, bytes]:
    """The digests that headers tell, of the kinds that are known.

    Raises:
        ValueError: one cannot be a digest.
    """
    found: dict[str, bytes] = {}
    for field in ("Digest", "Repr-Digest"):
        for one in headers[field].split(",") if field in headers else ():
            kind, _, value = one.strip().partition("=")
            kind = kind.lower()
            if kind not in LENGTHS:
                continue
            try:
                found[kind] = base64.b64decode(value.strip(":"), validate=True)
            except binascii.Error as error:
                raise ValueError("no digest") from error
            if len(found[kind]) != LENGTHS[kind]:
                raise ValueError("no digest")
    return found


def told_check(headers: Mapping[str, str]) -> tuple[Any, bytes] | None:
    """What is to be taken of a body to compare it with what was told of it, and that; None where nothing was told."""
    try:
        said = said_digests(headers)
    except ValueError:
        return None
    if XXH3 in said:
        return new_check(), said[XXH3]
    return (hashlib.sha256(), said[SHA256]) if SHA256 in said else None


def wants_sha256(headers: Mapping[str, str]) -> bool:
    """Whether a request asks for the SHA-256, in RFC 9530's field or in RFC 3230's."""
    for field in ("Want-Repr-Digest", "Want-Digest"):
        for one in headers[field].split(",") if field in headers else ():
            kind, _, weight = one.strip().replace(";q=", "=").partition("=")
            if kind.strip().lower() == SHA256:
                return weight.strip() not in {"0", "0.0"}
    return False


def bundle(index: Sequence[Any], contents: Iterable[bytes | memoryview]) -> bytes:
    """A message: an index, whose rows say each size, and contents."""
    return b"".join((bundle_head(index), *contents))


def bundle_head(index: Sequence[Any]) -> bytes:
    """What goes before the contents."""
    head = json.dumps(index, separators=(",", ":")).encode("ascii")
    return _LENGTH.pack(len(head)) + head


def unbundle(message: bytes | bytearray | memoryview) -> tuple[list[dict[str, Any]], list[memoryview]]:
    """The rows of a message, and the bytes of each; empty for a row without a size.

    Raises:
        ValueError: it is no such message.
    """
    whole = memoryview(message)
    if len(whole) < _LENGTH.size:
        raise ValueError("a bundle begins with the length of its index")
    length = _LENGTH.unpack_from(whole)[0]
    if length > MOST_INDEX:
        raise ValueError("the index of a bundle is too long")
    at = _LENGTH.size + length
    index = json.loads(bytes(whole[_LENGTH.size : at]))
    if not isinstance(index, list) or not all(isinstance(row, dict) for row in index):
        raise ValueError("the index of a bundle has an object for each file")
    contents = []
    for row in index:
        size = row.get("size", 0)
        if not isinstance(size, int) or size < 0 or at + size > len(whole):
            raise ValueError("a bundle has not the sizes that its index says")
        contents.append(whole[at : at + size])
        at += size
    if at != len(whole):
        raise ValueError("a bundle has more than its index says")
    return index, contents
