"""The advert service in PostgreSQL, for several front ends and workers that share it.

Passwords come from ``~/.pgpass``, ``$PGPASSFILE`` or a service file, never from the URL. Tables are made where they are
missing. Who waits for a change is woken by LISTEN and NOTIFY, over a connection of its own.

A lost connection is made again and the operation done again, for as long as `OPERATION_S`, unless it is not known
whether it was done and doing it twice would say something wrong. A server that takes connections and then falls silent
is let go of after the same time.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from serai.adverts.tables import SCHEMA, SCHEMA_VERSION, Bell, TableAdverts, Transaction
from serai.adverts.turns import Turns
from serai.clock import SystemClock
from serai.errors import DeadlineExceeded, HostUnreachable, LoginRefused, SeraiError, UsageError
from serai.session.url import Url

try:
    import psycopg
    from psycopg import conninfo as conninfos
    from psycopg.pq import TransactionStatus
except ImportError as error:
    raise UsageError(f"adverts in PostgreSQL need psycopg ({error})", hint="pip install 'serai[postgres]'") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from serai.clock import Clock

    Connection = psycopg.Connection[tuple[Any, ...]]

__all__ = ["PostgresAdverts", "from_url"]

T = TypeVar("T")

CONNECT_S = 10
OPERATION_S = 20.0
CLOSE_S = 5.0
MOST_CONNECTIONS = 4  # of one process, besides the one that listens; writers take turns in any case
LONGEST_PAUSE_S = 1.0  # between attempts to connect
LISTEN_S = 1.0  # a look at whether to go on listening; `close` does not wait for it
MAKING = 7_240_981_355  # what those who make tables at the same time lock; any number that nobody else takes
_MOST_TRIED = 5
_NAME = re.compile(r":(\w+)")
_AWAY = ("08", "57P")  # classes of errors: the connection, and a server that stops or starts
_BUSY = frozenset({"57014", "55P03", "40001", "40P01", "53300"})
_LOGIN = re.compile(r"authentication|password|pg_hba\.conf|role .* does not exist|certificate", re.IGNORECASE)
_TURN = "SELECT last, horizon FROM serai_adverts_turn"
_END = "UPDATE serai_adverts_turn SET last = %d; NOTIFY serai_adverts; COMMIT"
_NOW = "SELECT extract(epoch FROM clock_timestamp())::double precision"
_USE_PGPASS = "put it into ~/.pgpass (or $PGPASSFILE, or a service file): HOST:PORT:DATABASE:USER:PASSWORD"


def from_url(url: str, environment: Mapping[str, str]) -> PostgresAdverts:
    """Open ``postgresql://user@host:port/database?option=value``, with libpq's options.

    Raises:
        UsageError: it is no such URL, or it holds a password.
    """
    Url.parse(url)  # refuses passwords
    try:
        options = conninfos.conninfo_to_dict(url)
    except psycopg.Error as error:
        raise UsageError(f"{url.partition('?')[0]} is no URL of a database: {str(error).strip()}") from error
    if options.get("password") or options.get("sslpassword"):
        raise UsageError("a URL holds no password", hint=_USE_PGPASS)
    host = str(options.get("host") or environment.get("PGHOST") or "")
    said = "sslmode" in options or "service" in options or {"PGSSLMODE", "PGSERVICE"} & environment.keys()
    if not said and host and not host.startswith("/") and host not in {"localhost", "127.0.0.1", "::1"}:
        options["sslmode"] = "require"  # libpq would go without where the server does
    return PostgresAdverts({key: str(value) for key, value in options.items()}, SystemClock())


class PostgresAdverts(TableAdverts):
    """See this module.

    Args:
        options: of the connection, as libpq names them.
        clock: for waiting; what is written is by the database's clock.
    """

    def __init__(self, options: Mapping[str, str], clock: Clock) -> None:
        super().__init__(Bell(), clock)
        self._options = {
            "application_name": "serai", "connect_timeout": str(CONNECT_S), "keepalives_idle": "15",
            "keepalives_interval": "5", "keepalives_count": "3", "tcp_user_timeout": "20000", **options,
        }  # fmt: skip
        self._host = options.get("host") or "the local PostgreSQL"
        self._idle: list[Connection] = []
        self._lent: dict[Connection, float] = {}  # and since when
        self._free = Turns(MOST_CONNECTIONS)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._listening = threading.Event()
        self._listener: Connection | None = None
        self._threads = [
            threading.Thread(target=work, name=f"adverts-{name}", daemon=True)
            for name, work in (("listen", self._listen), ("guard", self._guard))
        ]
        try:
            self._operate(_make, again=lambda _: False)
        except SeraiError:
            self.close()
            raise
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """See `Adverts.close`."""
        super().close()
        self._ended.set()
        with self._lock:
            idle, self._idle = self._idle, []
            busy = [*self._lent, *([self._listener] if self._listener else [])]
        for connection in idle:
            connection.close()
        for connection in busy:
            _cut(connection)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(CLOSE_S)

    # ---- transactions

    def _read(self, work: Callable[[Transaction], T]) -> T:
        def read(connection: Connection, _: _Turn) -> T:
            done = work(_PostgresTransaction(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ""))
            connection.execute("COMMIT")
            return done

        return self._operate(read)

    def _write(self, work: Callable[[Transaction], T], *, repeatable: bool = True) -> T:
        def write(connection: Connection, turn: _Turn) -> T:
            transaction = _PostgresTransaction(connection, "BEGIN", "FOR UPDATE")
            before = transaction.last
            done = work(transaction)
            changed = transaction.last != before
            end = _END % transaction.last if changed else "COMMIT"
            turn.uncertain = True
            connection.execute(end.encode())
            turn.changed = changed
            return done

        turn = _Turn()
        done = self._operate(write, turn, again=lambda turn: repeatable or not turn.uncertain)
        if turn.changed:
            self._bell.ring()
        return done

    def _renew(self, path: str, ttl_s: float | None) -> bool:
        sql = (
            "UPDATE serai_adverts SET expires = extract(epoch FROM clock_timestamp()) + %(ttl)s::double precision "
            "WHERE path = %(path)s AND gone = '' "
            "AND (expires IS NULL OR expires > extract(epoch FROM clock_timestamp()))"
        )

        def renew(connection: Connection, _: _Turn) -> bool:
            # To wait for the disk would be in vain: after a crash of the server a renewal that was lost is made again.
            connection.execute("BEGIN; SET LOCAL synchronous_commit TO OFF")
            found = connection.execute(sql, {"path": path, "ttl": ttl_s}).rowcount
            connection.execute("COMMIT")
            return found == 1

        return self._operate(renew)

    # ---- connections

    def _operate(
        self,
        work: Callable[[Connection, _Turn], T],
        turn: _Turn | None = None,
        again: Callable[[_Turn], bool] = lambda _: True,
    ) -> T:
        """Do it over a connection; over another one where that is lost, as long as there is time."""
        turn, end, pause_s = turn or _Turn(), self._clock.now() + OPERATION_S, 0.05
        tried: list[str] = []
        while True:
            try:
                with self._connection(end) as connection:
                    return work(connection, turn)
            except psycopg.Error as error:
                told = self._told(error, tuple(tried[-_MOST_TRIED:]))
                what = told.what
            if not isinstance(told, HostUnreachable) or self._closed:
                raise told
            if not again(turn) or self._clock.now() + pause_s > end:
                raise told
            if what not in tried:
                tried.append(what)
            self._ended.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    @contextlib.contextmanager
    def _connection(self, end: float) -> Iterator[Connection]:
        if self._closed:
            raise HostUnreachable("the advert service was closed here")
        if not self._free.acquire(max(0.0, end - self._clock.now())):
            raise DeadlineExceeded(f"all connections were busy for {OPERATION_S:g} s", host=self._host)
        try:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = self._connect()
            try:
                with self._watched(connection):
                    yield connection
            finally:
                self._give_back(connection)
        finally:
            self._free.release()

    def _give_back(self, connection: Connection) -> None:
        """Keep it for the next, clean, or close it."""
        with contextlib.suppress(psycopg.Error), self._watched(connection):
            if connection.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
                connection.execute("ROLLBACK")
        with self._lock:
            keep = connection.info.transaction_status == TransactionStatus.IDLE and not self._closed
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()

    def _told(self, error: psycopg.Error, tried: tuple[str, ...]) -> SeraiError:
        text, state = " ".join(str(error).split()), error.sqlstate or ""
        if not state and _LOGIN.search(text):
            return LoginRefused(f"PostgreSQL refused the login: {text}", host=self._host, hint=_USE_PGPASS)
        if not state and 'database "' in text:
            return UsageError(text, host=self._host, hint="createdb makes one")
        if state in _BUSY:
            return DeadlineExceeded(f"the database is too busy: {text}", host=self._host, tried=tried)
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and (
            not state or state.startswith(_AWAY)
        ):
            hint = "does the server run there, and listen where this machine reaches it?"
            return HostUnreachable(f"the database is away: {text}", host=self._host, tried=tried, hint=hint)
        return SeraiError(f"the database refused: {text}", host=self._host)

    # ---- threads

    def _listen(self) -> None:
        """Ring when somebody else has changed something, and after every gap."""
        pause_s = 0.05
        while not self._ended.is_set():
            with contextlib.suppress(psycopg.Error):
                self._listen_once()
                pause_s = 0.05
            self._ended.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _listen_once(self) -> None:
        """Listen until the connection is lost, or this is closed."""
        with self._connect() as connection:
            with self._watched(connection):
                connection.execute("LISTEN serai_adverts")
            with self._lock:
                self._listener = connection
            try:
                self._bell.ring()
                self._listening.set()
                while not self._ended.is_set():
                    for _ in connection.notifies(timeout=LISTEN_S, stop_after=1):
                        self._bell.ring()
            finally:
                self._listening.clear()
                with self._lock:
                    self._listener = None

    def _connect(self) -> Connection:
        return psycopg.connect(**self._options, autocommit=True)  # type: ignore[arg-type] # they are text, all of them

    @contextlib.contextmanager
    def _watched(self, connection: Connection) -> Iterator[None]:
        """Have the guard look after it."""
        with self._lock:
            self._lent[connection] = self._clock.now()
        try:
            yield
        finally:
            with self._lock:
                del self._lent[connection]

    def _guard(self) -> None:
        """Cut connections whose operation takes too long: libpq waits for ever."""
        while not self._ended.wait(1.0):
            with self._lock:
                late = [one for one, since in self._lent.items() if self._clock.now() - since > OPERATION_S]
            for connection in late:
                _cut(connection)


class _Turn:
    """What is known of an attempt to write."""

    def __init__(self) -> None:
        self.uncertain = False  # a commit was sent
        self.changed = False


class _PostgresTransaction:
    """See `Transaction`. Beginning it is one round trip, and so is ending it: they are most of what it costs."""

    def __init__(self, connection: Connection, begin: str, lock: str) -> None:
        self._connection = connection
        cursor = connection.execute(f"{begin}; {_TURN} {lock}; {_NOW}".encode())
        cursor.nextset()
        ((self.last, self.horizon),) = cursor.fetchall()
        cursor.nextset()
        ((self.now,),) = cursor.fetchall()  # after the wait for one's turn

    def execute(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        """See `Transaction.execute`."""
        cursor = self._connection.execute(_psycopg_text(sql), values)
        return cursor.fetchall() if cursor.description else []


@cache
def _psycopg_text(sql: str) -> bytes:
    return _NAME.sub(r"%(\1)s", sql).encode()


def _make(connection: Connection, _: _Turn) -> None:
    """Make the tables where they are missing, and check that they are those of this version."""
    connection.execute("BEGIN")
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (MAKING,))
    found = connection.execute("SELECT to_regclass('serai_adverts_turn') IS NOT NULL").fetchone()
    if found == (False,):
        # names and paths are ordered by their bytes, whatever the database's language is
        text = SCHEMA.format(text='TEXT COLLATE "C"', real="DOUBLE PRECISION", version=SCHEMA_VERSION)
        connection.execute(text.encode())
    version = connection.execute("SELECT schema FROM serai_adverts_turn").fetchone()
    connection.execute("COMMIT")
    if version != (SCHEMA_VERSION,):
        raise SeraiError("the tables of adverts are of another version of Serai", hint="name another database")


def _cut(connection: Connection) -> None:
    """Wake whoever waits for the server, by ending the connection below libpq."""
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as sock:
        sock.shutdown(socket.SHUT_RDWR)
