"""The contract of jobs, as tests: whoever writes a mediator subclasses `JobsContract` and gives two fixtures.

::

    class TestMyJobs(JobsContract):
        @pytest.fixture
        def service(self) -> Iterator[JobService]:
            with JobService("my://cluster") as service:
                yield service
                service.cancel_jobs(service.list(), grace_s=0)
                service.remove_jobs(service.list())

        @pytest.fixture
        def on_host(self) -> OnHost:
            return lambda command: subprocess.run(command, capture_output=True, text=True, check=False)

The suite asks through the port, and looks at the host past it. Mediators that can lose their way to the host give
`lose` too.
"""

# ruff: noqa: D102 - the name of a test says what it shows

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest

from serai.access.jobs import Description, JobService, State
from serai.errors import DeadlineExceeded, SeraiError, UsageError

if TYPE_CHECKING:
    from serai.access.jobs import Job

OnHost = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]  # runs a command on the host by another way
Lose = Callable[[], None]  # ends the way to the host as abruptly as can be

END_S = 60.0
ODD = {"PLAIN": "1", "BLANKS": " a  b\t", "LINES": "one\ntwo\n", "QUOTES": "'\"`$HOME\\", "UMLAUT": "äß→𝄞", "EMPTY": ""}
ODD_BYTES = "\udcff\udcfe"  # bytes that are no text, as os.fsdecode gives them

# Leaves its group and its parent: a session of its own, then the parent of it ends.
ESCAPE = (
    "import os, time\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        os.environ.clear()\n"
    "        os.execve('/bin/sleep', ['sleep', '1000.%s'], {})\n"
    "    os._exit(0)\n"
    "os.wait()\n"
    "print('away', flush=True)\n"
    "time.sleep(1000)\n"
)
ANOTHER = (
    "import sys; from serai.access.jobs import JobService; job = JobService(*sys.argv[1:3]).get_job(sys.argv[3])\n"
)


def until(condition: Callable[[], object], what: str, within_s: float = END_S) -> None:
    """Wait for a condition; fail when it does not come true in time."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {within_s:g} s"
        threading.Event().wait(0.02)


class JobsContract:
    """What every mediator of jobs does. A subclass gives the fixtures `service` and `on_host`."""

    @pytest.fixture
    def service(self) -> JobService:
        """A service whose host nothing else of this user's Serai uses."""
        raise NotImplementedError

    @pytest.fixture
    def on_host(self) -> OnHost:
        """Runs commands on the host past the port."""
        raise NotImplementedError

    @pytest.fixture
    def lose(self, request: pytest.FixtureRequest) -> tuple[Lose, ...]:
        """Ways to lose the host, each to be tried."""
        return ()

    @pytest.fixture
    def another(self, service: JobService) -> Callable[[str, Job], str]:
        """Runs statements about ``job`` in another process of this machine; returns what they printed."""

        def run(statements: str, job: Job) -> str:
            words = [sys.executable, "-c", ANOTHER + statements, service.url, os.environ.get("SERAI_SSH_CONFIG", "")]
            done = subprocess.run([*words, job.id], capture_output=True, text=True, timeout=END_S, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout

        return run

    # ---- ends

    def test_a_command_that_ends_well_is_done(self, service: JobService) -> None:
        job = service.run_job(Description("true"))
        assert job.id.startswith(f"[{service.url}]-[")
        assert job.wait(END_S) is State.DONE
        assert job.exit_code == 0
        status = job.status()
        assert status.created is not None
        assert status.started is not None
        assert status.ended is not None
        assert status.created <= status.started <= status.ended
        assert status.command == ("true",)

    def test_exit_codes_are_the_commands_own(self, service: JobService) -> None:
        jobs = service.run_jobs([f"exit {code}" for code in (0, 1, 3, 127, 255)])
        assert service.wait_jobs(jobs, END_S) == jobs
        assert [job.exit_code for job in jobs] == [0, 1, 3, 127, 255]
        assert [job.state for job in jobs] == [State.DONE] + [State.FAILED] * 4

    def test_a_command_that_a_signal_ended_has_its_negative_number(self, service: JobService) -> None:
        job = service.run_job("kill -SEGV $$")
        assert job.wait(END_S) is State.FAILED
        assert job.exit_code == -signal.SIGSEGV

    def test_a_command_that_is_not_there_failed_and_says_so(self, service: JobService) -> None:
        for executable in ("no-such-program", "/no/such/program"):
            job = service.run_job(Description(executable))
            assert job.wait(END_S) is State.FAILED
            assert job.exit_code is None
            assert executable in str(job.status().error)

    def test_a_working_directory_that_is_not_there_is_named(self, service: JobService) -> None:
        job = service.run_job(Description("true", working_directory="/no/such/place"))
        assert job.wait(END_S) is State.FAILED
        assert "/no/such/place" in str(job.status().error)

    def test_a_file_that_cannot_be_opened_is_named(self, service: JobService) -> None:
        for one in (Description("true", input="/no/such/input"), Description("true", output="/no/such/output")):
            job = service.run_job(one)
            assert job.wait(END_S) is State.FAILED
            assert "/no/such/" in str(job.status().error)

    def test_its_time_is_limited(self, service: JobService) -> None:
        job = service.run_job(Description("sleep", ("1000",), wall_time_limit_s=0.3))
        assert job.wait(END_S) is State.FAILED
        assert "0.3 s" in str(job.status().error)
        assert job.exit_code == -signal.SIGTERM

    # ---- what it is given

    def test_arguments_and_variables_arrive_as_they_are(self, service: JobService) -> None:
        words = (*ODD.values(), ODD_BYTES, "-n", "*", "~")
        job = service.run_job(Description("printf", (r"%s\0", *words)))
        assert job.stdout.read() == b"".join(os.fsencode(word) + b"\0" for word in words)
        variables = {**ODD, "BYTES": ODD_BYTES}
        job = service.run_job(Description("env", ("-0",), environment=variables))
        lines = set(job.stdout.read().split(b"\0"))
        assert {os.fsencode(f"{name}={value}") for name, value in variables.items()} <= lines

    def test_it_runs_in_its_directory_and_uses_files_there(self, service: JobService, on_host: OnHost) -> None:
        place = on_host(["mktemp", "-d"]).stdout.strip()
        on_host(["chmod", "777", place])
        on_host(["sh", "-c", f"echo from the file > {place}/in; chmod 644 {place}/in"])
        what = "cat; pwd; echo wrong >&2"
        job = service.run_job(
            Description("sh", ("-c", what), working_directory=place, input="in", output="out", error="err")
        )
        assert job.wait(END_S) is State.DONE
        assert on_host(["cat", f"{place}/out"]).stdout == f"from the file\n{place}\n"
        assert on_host(["cat", f"{place}/err"]).stdout == "wrong\n"
        assert job.stdout.read() == f"from the file\n{place}\n".encode()
        both = service.run_job(
            Description("sh", ("-c", "echo 1; echo 2 >&2; echo 3"), working_directory=place, output="b", error="b")
        )
        assert both.wait(END_S) is State.DONE
        assert on_host(["cat", f"{place}/b"]).stdout == "1\n2\n3\n"
        on_host(["rm", "-r", place])

    def test_what_cannot_be_honoured_is_refused_by_name(self, service: JobService) -> None:
        with pytest.raises(UsageError, match=r"queue='no_such_thing'"):
            service.create_job(Description("true", queue="no_such_thing"))

    # ---- streams

    def test_what_it_reads_comes_with_it(self, service: JobService) -> None:
        data = bytes(range(256)) * 4000
        job = service.run_job(Description("cat"), stdin=data)
        assert job.stdout.read() == data
        assert service.run_job(Description("cat")).stdout.read() == b""

    def test_large_streams_arrive_whole_both_ways(self, service: JobService) -> None:
        block = os.urandom(1 << 20)
        job = service.run_job(Description("sh", ("-c", "tee /dev/stderr"), interactive=True))

        def feed() -> None:
            for _ in range(50):
                job.stdin.write(block)
            job.stdin.close()

        feeder = threading.Thread(target=feed)
        feeder.start()
        for stream in (job.stdout, job.stderr):
            for _ in range(50):
                assert stream.read(1 << 20) == block
            assert stream.read() == b""
        feeder.join(END_S)
        assert job.wait(END_S) is State.DONE

    def test_no_more_is_kept_than_was_asked_for(self, service: JobService) -> None:
        what = "head -c 3000000 /dev/zero; echo short >&2"
        job = service.run_job(Description("sh", ("-c", what), output_limit_bytes=1_000_000))
        assert job.wait(END_S) is State.DONE
        assert job.stdout.read() == bytes(1_000_000)
        assert job.stderr.read() == b"short\n"

    def test_it_is_spoken_with_line_by_line(self, service: JobService) -> None:
        job = service.run_job(
            Description("sh", ("-c", "while read line; do echo got $line; done; echo end"), interactive=True)
        )
        for n in range(5):
            job.stdin.write(f"{n}\n".encode())
            assert job.stdout.readline() == f"got {n}\n".encode()
        job.stdin.close()
        assert job.stdout.read() == b"end\n"
        with pytest.raises(ValueError, match="closed"):
            job.stdin.write(b"more")

    def test_writing_to_one_that_does_not_read_waits_and_ends_with_it(self, service: JobService) -> None:
        job = service.run_job(Description("sleep", ("1000",), interactive=True))
        broken = threading.Event()

        def feed() -> None:
            try:
                job.stdin.write(bytes(20 << 20))
            except (OSError, SeraiError):
                broken.set()

        feeder = threading.Thread(target=feed)
        feeder.start()
        feeder.join(0.3)
        assert feeder.is_alive()  # 20 MB are nowhere
        job.cancel()
        feeder.join(END_S)
        assert broken.is_set()

    def test_a_stream_is_read_from_anywhere_and_while_it_runs(self, service: JobService) -> None:
        job = service.run_job("echo one; echo two; sleep 1000")
        assert job.stdout.readline() == b"one\n"
        assert job.stdout.readline() == b"two\n"
        assert b"".join(job.read("stdout", 4)) == b"two\n"
        job.cancel()
        assert job.stdout.read() == b""

    # ---- operations

    def test_waiting_has_a_deadline(self, service: JobService) -> None:
        job = service.run_job("sleep 1000")
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            job.wait(0.3)
        assert 0.3 <= time.monotonic() - began < 30
        ended = service.run_job("true")
        ended.wait(END_S)
        with pytest.raises(DeadlineExceeded, match="2 jobs 1 have not"):
            service.wait_jobs([job, ended], 0.5)
        quick = service.run_job("true")
        assert service.wait_jobs([job, quick], END_S, first=True) == [quick]

    def test_suspended_it_stands_still_with_all_it_started(self, service: JobService, on_host: OnHost) -> None:
        job = service.run_job("sleep 1000.5 & echo $! $$; wait")
        pids = job.stdout.readline().decode().split()
        states = ["sh", "-c", "cat /proc/$0/stat /proc/$1/stat | sed 's/.*) //' | cut -c1", *pids]
        job.suspend()
        assert job.state is State.SUSPENDED
        assert on_host(states).stdout.split() == ["T", "T"]
        job.resume()
        assert job.status().state is State.RUNNING
        # For a moment they are on their way back to what they wait for.
        until(lambda: on_host(states).stdout.split() == ["S", "S"], "all of it goes on")
        job.suspend()
        job.cancel()
        assert job.wait(END_S) is State.CANCELED

    def test_signals_reach_it(self, service: JobService) -> None:
        what = "trap 'echo one; exit 7' USR1; echo ready; while :; do sleep 0.02; done"
        job = service.run_job(what)
        assert job.stdout.readline() == b"ready\n"
        job.signal(signal.SIGUSR1, main_only=True)
        assert job.wait(END_S) is State.FAILED
        assert job.exit_code == 7
        assert job.stdout.read() == b"one\n"
        with pytest.raises(UsageError, match="not under way"):
            job.signal(signal.SIGUSR1)

    def test_canceled_it_ends_with_all_it_started(self, service: JobService, on_host: OnHost) -> None:
        mark = f"{os.getpid()}{time.monotonic_ns()}"
        here = ["pgrep", "-cf", f"^sleep 1000.{mark}"]
        python = service.run_job(Description("python3", ("-c", ESCAPE % mark)))
        assert python.stdout.readline() == b"away\n"
        until(lambda: on_host(here).stdout.strip() == "1", "what left it has become a program")
        python.cancel()
        assert python.state is State.CANCELED
        assert python.exit_code == -signal.SIGTERM
        assert on_host(here).stdout.strip() == "0"
        python.cancel()

    def test_one_that_ignores_the_polite_signal_ends_too(self, service: JobService) -> None:
        job = service.run_job("trap '' TERM; echo ready; while :; do sleep 1; done")
        assert job.stdout.readline() == b"ready\n"
        job.cancel(grace_s=0.2)
        assert job.wait(END_S) is State.CANCELED
        assert job.exit_code == -signal.SIGKILL

    def test_it_ends_with_its_command_or_with_all_when_asked(self, service: JobService, on_host: OnHost) -> None:
        job = service.run_job("sleep 1000.7 & echo $!")
        left = job.stdout.read().decode().strip()
        assert job.wait(END_S) is State.DONE
        assert on_host(["kill", "-0", left]).returncode == 0
        job.cancel()  # what it left behind
        assert job.state is State.DONE
        until(
            lambda: on_host(["kill", "-0", left]).returncode != 0, "what it left is gone, and collected by its parent"
        )
        go = on_host(["mktemp", "-u"]).stdout.strip()
        child = "(until test -e $0; do sleep 0.05; done) & exit 3"
        whole = service.run_job(Description("sh", ("-c", child, go), await_children=True))
        with pytest.raises(DeadlineExceeded):
            whole.wait(0.05)
        on_host(["touch", go])
        assert whole.wait(END_S) is State.FAILED
        on_host(["rm", go])
        assert whole.exit_code == 3

    # ---- sessions

    def test_another_process_takes_it_up_by_its_identifier(
        self, service: JobService, another: Callable[[str, Job], str]
    ) -> None:
        job = service.run_job(Description("sh", ("-c", "echo begun; read line; echo $line; exit 5"), interactive=True))
        assert job.stdout.readline() == b"begun\n"
        said = another("print(job.state.name); job.stdin.write(b'hello\\n'); print(job.wait(20), job.exit_code)", job)
        assert said.split() == ["RUNNING", "State.FAILED", "5"]
        assert job.stdout.read() == b"hello\n"

    def test_two_services_see_the_same_jobs(self, service: JobService) -> None:
        first, second = service.run_jobs(["sleep 1000", "true"])
        assert [job.id for job in JobService(service.url).list()] == [job.id for job in service.list()]
        assert {first.id, second.id} <= {job.id for job in service.list()}
        same = JobService(service.url).get_job(first.last_id)
        same.cancel()
        assert first.state is State.CANCELED
        with pytest.raises(UsageError, match="no job"):
            service.get_job("nosuchjob")
        with pytest.raises(UsageError, match="a job of other:"):
            service.get_job("[other:]-[nosuchjob]")
        with pytest.raises(UsageError):
            service.get_job("../../etc")

    def test_only_what_has_ended_is_removed(self, service: JobService) -> None:
        job = service.run_job("sleep 1000")
        with pytest.raises(UsageError, match="has not ended"):
            job.remove()
        job.cancel()
        job.remove()
        job.remove()
        assert job.id not in {one.id for one in service.list()}

    def test_the_same_job_started_twice_is_one(self, service: JobService) -> None:
        job = service.create_job("echo once")
        assert job.state is State.NEW
        job.run()
        job.run()
        assert job.wait(END_S) is State.DONE
        assert job.stdout.read() == b"once\n"

    def test_a_hundred_at_once(self, service: JobService) -> None:
        jobs = service.run_jobs([Description("sh", ("-c", f"echo {n}")) for n in range(100)])
        assert service.wait_jobs(jobs, END_S) == jobs
        assert [int(job.stdout.read()) for job in jobs] == list(range(100))
        service.remove_jobs(jobs)

    def test_all_that_waits_can_be_awaited(self, service: JobService) -> None:
        async def together() -> list[State]:
            async with service:
                jobs = await asyncio.gather(*(service.run_job_async(f"exit {n % 2}") for n in range(20)))
                return await asyncio.gather(*(job.wait_async(END_S) for job in jobs))

        assert asyncio.run(together()) == [State.DONE, State.FAILED] * 10

    def test_it_goes_on_when_the_way_to_it_is_lost(self, service: JobService, lose: tuple[Lose, ...]) -> None:
        for one in lose:
            job = service.run_job("echo begun; n=0; while [ $n -lt 20 ]; do sleep 0.05; n=$((n+1)); echo $n; done")
            assert job.stdout.readline() == b"begun\n"
            one()
            assert job.stdout.read() == b"".join(b"%d\n" % n for n in range(1, 21))
            assert job.wait(END_S) is State.DONE
            long = service.run_job("sleep 1000")
            one()
            assert long.state is State.RUNNING
            one()
            long.cancel()
            assert long.status().state is State.CANCELED
            one()
            assert service.run_job("true").wait(END_S) is State.DONE
