"""What is PostgreSQL's own: servers that stop, hang or refuse, and URLs."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

import serai.adverts.postgresql as module
from serai.adverts.postgresql import PostgresAdverts, from_url
from serai.errors import DeadlineExceeded, HostUnreachable, LoginRefused, SeraiError, UsageError
from serai.testing.postgres import PostgresServer, need_postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOON_S = 40.0
CLIENTS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'serai'"
# Ends the connection while it commits, once for each name in this sequence's life: what was done is not known there.
DIE_AT_COMMIT = """
CREATE SEQUENCE deaths;
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.path LIKE '/die/%' AND nextval('deaths') % 2 = 1 THEN
    PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5);
  END IF; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER die AFTER INSERT OR UPDATE ON serai_adverts DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION die()
"""


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@pytest.fixture
def fresh(postgres: PostgresServer) -> PostgresServer:
    postgres.sql("DROP TABLE IF EXISTS serai_adverts, serai_adverts_turn")
    return postgres


@pytest.fixture(scope="module")
def breakable() -> Iterator[PostgresServer]:
    """A server of our own, to break: durable, or the tables would be lost that were made a moment ago."""
    need_postgres()
    with PostgresServer(durable=True) as server:
        yield server


@pytest.fixture
def adverts(breakable: PostgresServer) -> Iterator[PostgresAdverts]:
    with from_url(breakable.url, {}) as adverts:
        assert adverts._listening.wait(SOON_S)
        yield adverts


def test_a_server_that_starts_again_is_found_again_and_watches_go_on(
    adverts: PostgresAdverts, breakable: PostgresServer
) -> None:
    adverts.put("/a", {})
    since = adverts.watch("/b", None, 0).version
    with ThreadPoolExecutor(1) as threads:
        watching = threads.submit(adverts.watch, "/b", since, SOON_S)
        breakable.stop(signal.SIGINT)
        breakable.start()
        assert adverts.get("/a") is not None
        adverts.claim("/a", "me", 60)
        with from_url(breakable.url, {}) as other:
            other.put("/b", {})
        assert [change.path for change in watching.result(SOON_S).changes] == ["/b"]
        until(adverts._listening.is_set, "it listens again")


def test_a_server_that_stays_away_is_an_error_in_time_with_what_was_tried(
    adverts: PostgresAdverts, breakable: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough for several attempts on a busy machine: the first is not among those that were tried before.
    monkeypatch.setattr(module, "OPERATION_S", 2.0)
    breakable.stop()
    try:
        began = time.monotonic()
        with pytest.raises(HostUnreachable, match="the database is away") as caught:
            adverts.put("/a", {})
        assert 1.0 < time.monotonic() - began < SOON_S
        assert caught.value.transient
        assert caught.value.tried
        assert "does the server run there" in str(caught.value.hint)
    finally:
        monkeypatch.undo()
        breakable.start()
    adverts.put("/a", {})


def test_a_server_that_hangs_is_let_go_of(
    adverts: PostgresAdverts, breakable: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    adverts.put("/a", {})
    monkeypatch.setattr(module, "OPERATION_S", 1.0)
    pids = [int(pid) for pid in breakable.sql(CLIENTS).split()] + [breakable.pid]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises((HostUnreachable, DeadlineExceeded)):
            adverts.put("/a", {})
        assert time.monotonic() - began < SOON_S
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    monkeypatch.undo()
    adverts.put("/a", {})


def test_what_is_not_known_to_be_done_is_done_again_only_where_that_is_the_same(
    adverts: PostgresAdverts, breakable: PostgresServer
) -> None:
    breakable.sql(DIE_AT_COMMIT)
    try:
        adverts.put("/die/a", {"x": 1})
        assert breakable.sql("SELECT last_value FROM deaths") == "2\n", "it was done again"
        with pytest.raises(HostUnreachable):
            adverts.put("/die/b", {}, exclusive=True)
        entry = adverts.get("/die/a")
        assert entry is not None
        assert entry.attributes == {"x": 1}
    finally:
        breakable.sql("DROP TRIGGER die ON serai_adverts; DROP FUNCTION die(); DROP SEQUENCE deaths")


def test_few_connections_serve_many_threads_and_are_given_back(fresh: PostgresServer) -> None:
    with from_url(fresh.url, {}) as adverts:
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda number: adverts.put(f"/x/{number}", {}), range(200)))
        assert len(adverts.list("/x")) == 200
        assert len(fresh.sql(CLIENTS).split()) <= module.MOST_CONNECTIONS + 1
    until(lambda: not fresh.sql(CLIENTS).strip(), "its connections are closed")
    assert not any(thread.name.startswith("adverts-") and thread.is_alive() for thread in adverts._threads)


def test_several_make_the_tables_at_once(fresh: PostgresServer) -> None:
    start = threading.Barrier(6)

    def first(number: int) -> int:
        start.wait(SOON_S)
        with from_url(fresh.url, {}) as adverts:
            return adverts.put(f"/x/{number}", {})

    with ThreadPoolExecutor(6) as threads:
        assert len(set(threads.map(first, range(6)))) == 6


def test_versions_are_visible_in_order_though_a_writer_dawdles(fresh: PostgresServer) -> None:
    with from_url(fresh.url, {}) as adverts, psycopg.connect(fresh.url) as dawdler:
        adverts.put("/d/0", {})
        since = adverts.watch("/d", None, 0).version
        dawdler.execute("SELECT last FROM serai_adverts_turn FOR UPDATE")
        with ThreadPoolExecutor(2) as threads:
            writing = threads.submit(adverts.put, "/d/1", {})
            assert not adverts.watch("/d", since, 0.3).changes
            assert not writing.done(), "it waits for its turn"
            dawdler.rollback()
            assert writing.result(SOON_S) == since + 1
        assert [change.path for change in adverts.watch("/d", since, SOON_S).changes] == ["/d/1"]


def test_tables_of_another_version_are_left_alone(fresh: PostgresServer) -> None:
    with from_url(fresh.url, {}):
        fresh.sql("UPDATE serai_adverts_turn SET schema = 99")
    with pytest.raises(SeraiError, match="another version"):
        from_url(fresh.url, {})


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:hunter2@host/db", "postgresql:///db?password=hunter2", "postgresql:///db?sslpassword=hunter2"],
)
def test_a_url_holds_no_password(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_url(url, {})
    assert "hunter2" not in str(caught.value)


def test_who_is_refused_is_told_so(fresh: PostgresServer) -> None:
    with pytest.raises(LoginRefused, match="stranger"):
        from_url(f"postgresql:///postgres?host={fresh.directory}&user=stranger", {})
    with pytest.raises(UsageError, match="nowhere"):
        from_url(fresh.url.replace("/postgres?", "/nowhere?"), {})
    with pytest.raises(UsageError, match="no URL of a database"):
        from_url("postgresql:///db?nonesuch=1", {})


def test_beyond_this_machine_it_is_tls_unless_one_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(module, "PostgresAdverts", lambda options, _clock: seen.append(options))
    for url in ("postgresql://me@db.example/x", "postgresql://me@127.0.0.1/x", "postgresql:///x?host=/run/pg"):
        from_url(url, {})
    from_url("postgresql://me@db.example/x?sslmode=verify-full", {})
    from_url("postgresql:///x", {"PGHOST": "db.example"})
    assert [options.get("sslmode") for options in seen] == ["require", None, None, "verify-full", "require"]
