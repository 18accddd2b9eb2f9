"""Jobs of this machine and of an ssh host, and what is particular to them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serai.access import connections, porter
from serai.access.jobs import Description, Job, JobService, State
from serai.access.porter import CALL_S, shared_porter
from serai.errors import AccessError, UsageError
from serai.testing.jobs import END_S, JobsContract, until
from serai.travel.porter import lineage
from serai.travel.porter.calls import MOST_THREADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.access.conftest import Sshd

    from serai.access.openssh import Target
    from serai.testing.jobs import Lose, OnHost


def here(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=END_S, check=False)


def end_all(service: JobService) -> None:
    service.cancel_jobs(service.list(), grace_s=0)
    service.remove_jobs(service.list())


def kill_porter(target: Target | None) -> None:
    pid = shared_porter(target, "jobs").call("who")[0]["pid"]
    os.kill(pid, signal.SIGKILL)


class TestLocal(JobsContract):
    @pytest.fixture
    def service(self) -> Iterator[JobService]:
        with JobService("local:") as service:
            yield service
            end_all(service)
        porter.close_all()  # the next test has another $SERAI_STATE

    @pytest.fixture
    def on_host(self) -> OnHost:
        return here

    @pytest.fixture
    def lose(self) -> tuple[Lose, ...]:
        return (lambda: kill_porter(None),)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory, start_sshd: Callable[[str], Sshd]) -> Iterator[Sshd]:
    yield start_sshd(f"SetEnv SERAI_STATE={tmp_path_factory.mktemp('far')}\n")
    porter.close_all()
    connections.close_all()


class TestSsh(JobsContract):
    @pytest.fixture
    def service(self, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobService]:
        monkeypatch.setenv("SERAI_SSH_CONFIG", str(sshd.config))
        with JobService("ssh://lab") as service:
            yield service
            end_all(service)

    @pytest.fixture
    def on_host(self) -> OnHost:
        return here

    @pytest.fixture
    def lose(self, service: JobService) -> tuple[Lose, ...]:
        target = service._mediator._target  # type: ignore[attr-defined]

        def kill_master() -> None:
            master = connections.shared(target)._master
            assert master is not None
            os.kill(master.pid, signal.SIGKILL)
            assert master.ended(END_S)

        return kill_master, lambda: kill_porter(target)


# ---- what is particular to keepers


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is no job's."""
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        yield process
        process.kill()


@pytest.fixture
def service() -> Iterator[JobService]:
    with JobService("local:") as service:
        yield service
        end_all(service)
    porter.close_all()


def keeper_of(job: Job) -> int:
    """The process above the job's command."""
    pid = job.status().pid
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def room_of(job: Job) -> Path:
    return next(Path(os.environ["SERAI_STATE"]).glob(f"jobs/*/{job.last_id}"))


def test_what_is_kept_is_the_users_own_and_holds_no_variable(service: JobService) -> None:
    job = service.run_job(Description("true", environment={"TOKEN": "s3cret"}))
    job.wait(END_S)
    room = room_of(job)
    assert room.stat().st_mode & 0o777 == 0o700
    for path in room.iterdir():
        assert path.name in {"out", "err"} or path.stat().st_mode & 0o077 == 0
        assert path.name == "alive" or b"s3cret" not in path.read_bytes()


def test_a_job_whose_keeper_was_ended_is_waited_for_and_nobody_knows_its_end(
    service: JobService, tmp_path: Path
) -> None:
    job = service.run_job(
        Description("sh", ("-c", 'until test -e "$0"; do sleep 0.05; done; exit 3', f"{tmp_path}/go"))
    )
    os.kill(keeper_of(job), signal.SIGKILL)
    assert job.state is State.RUNNING
    (tmp_path / "go").touch()
    assert job.wait(END_S) is State.FAILED
    assert job.exit_code is None
    assert "keeper" in str(job.status().error)


def test_a_job_whose_keeper_was_ended_is_canceled_with_all_it_started(service: JobService) -> None:
    job = service.run_job("setsid sleep 1000.25 & echo $!; wait")
    child = int(job.stdout.readline())
    os.kill(keeper_of(job), signal.SIGKILL)
    job.cancel()
    assert job.state is State.CANCELED
    until(lambda: not Path(f"/proc/{child}").exists(), "the child has ended")


def test_a_process_with_the_number_of_an_ended_one_is_left_alone(
    service: JobService, stranger: subprocess.Popen[bytes]
) -> None:
    job = service.run_job("sleep 1000")
    os.kill(keeper_of(job), signal.SIGKILL)
    os.kill(job.status().pid or 0, signal.SIGKILL)
    job.wait(END_S)
    started = json.loads((room_of(job) / "started").read_text())
    earlier = {key: started[key] - 999 for key in ("start", "keeper_start")}  # hundredths of a second
    reused = {**started, **earlier, "pid": stranger.pid, "keeper": stranger.pid}
    (room_of(job) / "started").write_text(json.dumps(reused))
    job = service.get_job(job.id)
    assert job.state is State.FAILED
    job.cancel()
    assert stranger.poll() is None


def test_one_that_waits_for_a_child_to_become_a_program_is_suspended_too(service: JobService, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    spawn = "import os; os.posix_spawn('/bin/true', ['true'], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, %r, 0, 0)])"
    job = service.run_job(Description(sys.executable, ("-c", spawn % str(fifo))))
    pid = job.status().pid
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "D", "it waits for its child")
    began = time.monotonic()
    job.suspend()
    assert job.state is State.SUSPENDED
    assert time.monotonic() - began < 15  # its child goes on only when this test lets it
    job.resume()
    assert job.status().state is State.RUNNING
    with fifo.open("wb"):
        assert job.wait(END_S) is State.DONE


def test_jobs_of_before_a_restart_of_the_host_have_failed(service: JobService) -> None:
    job = service.run_job("sleep 1000")
    made = json.loads((room_of(job) / "job").read_text())
    (room_of(job) / "job").write_text(json.dumps({**made, "boot": "another"}))
    assert job.state is State.FAILED
    assert "started again" in str(job.status().error)
    (room_of(job) / "job").write_text(json.dumps(made))


def test_it_outlives_what_forks_keepers(service: JobService) -> None:
    job = service.run_job("sleep 1000")
    with open(f"/proc/{keeper_of(job)}/stat") as file:
        nursery = int(file.read().rpartition(")")[2].split()[1])
    os.kill(nursery, signal.SIGKILL)
    assert service.run_job("true").wait(END_S) is State.DONE
    assert job.state is State.RUNNING


def test_a_job_that_was_canceled_before_it_began_does_not_begin(service: JobService) -> None:
    job = service.create_job("echo ran")
    room = Path(os.environ["SERAI_STATE"]) / "jobs" / os.uname().nodename / job.last_id
    room.mkdir(parents=True)
    (room / "canceled").write_text("{}")
    job.run()
    assert job.wait(END_S) is State.CANCELED
    assert job.stdout.read() == b""


def test_many_that_do_not_read_hold_up_nobody_else(service: JobService) -> None:
    jobs = service.run_jobs([Description("sleep", ("1000",), interactive=True)] * (MOST_THREADS + 6))
    writers = [threading.Thread(target=write_in_vain, args=(job,)) for job in jobs]
    for one in writers:
        one.start()
    time_left = time.monotonic() + 40  # each of the others waits for longer: until its job ends, or for CALL_S
    assert service.run_job("true").wait(END_S) is State.DONE
    assert time.monotonic() < time_left < time.monotonic() + CALL_S
    assert all(one.is_alive() for one in writers)
    service.cancel_jobs(jobs, grace_s=1)
    for one in writers:
        one.join(END_S)
        assert not one.is_alive()


def write_in_vain(job: Job) -> None:
    with contextlib.suppress(OSError):
        job.stdin.write(bytes(200_000))


def test_what_ended_long_ago_is_removed_at_the_next_start(service: JobService) -> None:
    old, new, lasting = service.run_jobs(["true", "true", "sleep 1000"])
    service.wait_jobs([old, new], END_S)
    for job in (old, lasting):
        for name in ("ended", "job"):
            path = room_of(job) / name
            if path.exists():
                facts = json.loads(path.read_text())
                key = "time" if name == "ended" else "created"
                path.write_text(json.dumps({**facts, key: facts[key] - 8 * 86400}))
    porter.close_all()
    service.run_job("true").wait(END_S)
    until(lambda: old.id not in {job.id for job in service.list()}, "the old one is gone")
    assert {new.id, lasting.id} <= {job.id for job in service.list()}


def test_a_session_ends_while_its_jobs_go_on(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERAI_SSH_CONFIG", str(sshd.config))
    service = JobService("ssh://lab")
    job = service.run_job("sleep 1000")
    began = time.monotonic()
    porter.close_all()
    assert time.monotonic() - began < 20  # nobody holds the session's streams: the job does so for 1,000 s
    assert service.get_job(job.id).state is State.RUNNING
    end_all(service)


def test_hosts_are_started_concurrently_and_refused_by_name() -> None:
    with pytest.raises(UsageError, match="names no host"):
        JobService("ssh:")
    with pytest.raises(UsageError, match="nothing here has jobs for gopher"):
        JobService("gopher://lab")
    with pytest.raises(AccessError, match="no-such-python"):
        JobService("local:", python="no-such-python").open()


def test_the_polled_table_of_processes_agrees_with_the_kernels(stranger: subprocess.Popen[bytes]) -> None:
    """What is used where there is no /proc."""
    until(lambda: (one := lineage.look(stranger.pid)) and one.state == "S", "it sleeps")
    polled, seen = lineage.by_ps()[stranger.pid], lineage.look(stranger.pid)
    assert seen is not None
    assert (polled.state, polled.parent, polled.group) == ("S", os.getpid(), stranger.pid)
    assert (seen.state, seen.parent, seen.group) == ("S", os.getpid(), stranger.pid)
