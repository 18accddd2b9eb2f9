"""What workers are told that they run: commands, executables or functions; and the secret they share."""

from __future__ import annotations

import datetime
import secrets
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serai.describe.mapreduce import Binaries, Commands
from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serai.apps.mapreduce.launch import Place
    from serai.describe.mapreduce import Session

SORT_BYTES = 256 << 20  # that a worker may hold before it writes a run to disk
RECORDS = ("lines", "bytes")


@dataclass(frozen=True, slots=True)
class Job:
    """What is run.

    Attributes:
        program: executables or commands; None for functions.
        body: functions as cloudpickle packed them: (mapper, combiner, reducer).
        combiner: "count" or "sum" where it is one of these, "function" or "none" for functions.
        records: what a mapper gets: lines as text, or as bytes.
        pairs: outputs are pickled pairs, rather than lines of text.
        sort_bytes: that a worker may hold before it writes a run to disk.
    """

    program: Commands | Binaries | None
    body: bytes = b""
    combiner: str = ""
    records: str = "lines"
    pairs: bool = False
    sort_bytes: int = SORT_BYTES

    @classmethod
    def of_session(cls, session: Session) -> Job:
        """The job of a session that names commands or executables.

        Raises:
            UsageError: it names neither.
        """
        if session.program is None:
            raise UsageError("the session says nothing of what is run")
        return cls(session.program)

    def why_not(self, ad: Mapping[str, Any]) -> str:
        """Why a worker cannot run it; "" when it can."""
        if self.program is not None:
            return ""
        python = ad.get("python")
        version = tuple(python[:2]) if isinstance(python, list) else tuple(str(python).split(".")[:2])
        mine = sys.version_info[:2]
        if tuple(str(part) for part in version) == tuple(str(part) for part in mine):
            return ""
        return (
            f"its Python is {'.'.join(str(part) for part in version)}, and functions were pickled by "
            f"{mine[0]}.{mine[1]}; name a fitting interpreter with ?python="
        )

    def head_for(self, place: Place | None) -> dict[str, Any]:
        """What a worker is told: the kinds of mapper, combiner and reducer, and how it is to sort.

        Args:
            place: where it was started; None when somebody else started it, which commands do not allow.
        """
        mapper, combiner, reducer = self._parts(place)
        return {
            "records": self.records,
            "mapper": mapper,
            "combiner": combiner,
            "reducer": reducer,
            "output": "pairs" if self.pairs else "lines",
            "memory_bytes": self.sort_bytes,
        }

    def _parts(self, place: Place | None) -> tuple[Any, Any, Any]:
        if self.program is None:
            named = {"count": {"kind": "count"}, "sum": {"kind": "sum"}, "function": {"kind": "function"}}
            return {"kind": "function"}, named.get(self.combiner), {"kind": "function"}
        if place is None:
            raise UsageError("commands run where their files were sent: on the hosts of the session")
        if isinstance(self.program, Binaries):
            words = [f"{place.image} {word}" for word in ("map", "combine", "reduce")]
            parts = (words[0], words[1] if self.program.combine else None, words[2])
        else:
            parts = (self.program.mapper, self.program.combiner, self.program.reducer)
        directory = f"{place.facts['room']}/files"
        mapper, combiner, reducer = (
            None if text is None else {"kind": "command", "command": text, "directory": directory} for text in parts
        )
        if isinstance(self.program, Commands) and self.program.combiner in {"count", "sum"}:
            combiner = {"kind": self.program.combiner}
        return mapper, combiner, reducer


class Shuffle:
    """What the workers of one run share, so that they can talk to each other and to nobody else: a certificate, made
    here and pinned on both sides, its key, and a token. It reaches them through the gateway only.

    Attributes:
        facts: ``cert`` and ``key`` in PEM, and ``token``.
    """

    def __init__(self, wall: float) -> None:
        from cryptography import x509  # noqa: PLC0415 - slow to import
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415 - as above
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - as above

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "serai mapreduce")])
        now = datetime.datetime.fromtimestamp(wall, datetime.UTC)
        day = datetime.timedelta(days=1)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 30 * day)  # clocks of nodes may be wrong; it dies with the run anyway
            .not_valid_after(now + 365 * day)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        self.facts = {
            "cert": certificate.public_bytes(pem).decode(),
            "key": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain).decode(),
            "token": secrets.token_hex(32),
        }
