"""Hosts die, hang, are cut off and come back while a run goes on: every task is done, once as far as anyone can see."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from tests.e2e.conftest import HOLD

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from tests.e2e.conftest import Front

    from serai.testing.lab import Host

pytestmark = pytest.mark.lab

COUNT = 160
# Each start and each end of a task is a line in a file that outlives everything on the host.
COMMAND = HOLD + "echo {line} >> /var/tmp/started; sleep 0.2; echo {line} >> /var/tmp/ended; echo result {line} > {out}"

# Tasks after the hundredth wait for this on their host: a run of more does not end before what is done to it.
LATER = "/var/tmp/later"
PART = f"while test {{line}} -gt 100 -a -e {LATER}; do sleep 0.05; done; {COMMAND}"

GIVEN_UP = "SELECT 1 FROM note WHERE node = 'lab3' AND text LIKE '%silent%'"


def begin(front: Front, *, count: int = COUNT, command: str = COMMAND) -> subprocess.Popen[str]:
    with front.together():
        return front.start("run", command, "--each", f"1..{count}", "--out", "o", *front.on())


def begin_part(front: Front) -> subprocess.Popen[str]:
    """Begin a run that does not end before `LATER` is removed on its hosts."""
    for host in front.lab.hosts:
        host.run(["touch", LATER], check=True)
    return begin(front, command=PART)


def let_the_rest_go(front: Front) -> None:
    for host in front.lab.hosts:
        if host.is_up:
            host.run(["rm", "-f", LATER], check=True)


def finish(front: Front, process: subprocess.Popen[str], *, count: int = COUNT, within_s: float = 150.0) -> str:
    out, err = process.communicate(timeout=within_s)
    assert process.returncode == 0, err
    assert sorted(os.listdir(front.home / "o"), key=int) == [str(n) for n in range(1, count + 1)], out + err
    for number in range(1, count + 1):
        assert (front.home / f"o/{number}").read_text() == f"result {number}\n"
    assert len(front.done()) == count
    return err


def times(front: Front, file: str) -> dict[int, int]:
    """How often each task did something, over all hosts."""
    found: dict[int, int] = {}
    for host in front.lab.hosts:
        if not host.is_up:
            host.start()
        for word in host.run(["sh", "-c", f"cat /var/tmp/{file} 2>/dev/null"]).stdout.split():
            found[int(word)] = found.get(int(word), 0) + 1
    return found


def under_way(front: Front, *, tasks: int = 20) -> None:
    front.until(
        lambda: len(front.done()) >= tasks and all(front.busy_on(host.name) for host in front.lab.hosts), "a start"
    )


def on_two(front: Front, name: str) -> int:
    return len(front.query(f"SELECT 1 FROM result WHERE node = '{name}'"))  # noqa: S608 - our own names


def works_again(front: Front) -> None:
    """Wait until the third host does; the others are held meanwhile, or they would have done everything by then."""
    before = on_two(front, "lab3")
    front.until(lambda: on_two(front, "lab3") > before + 4, "it works again", 90)
    front.let_go()


def test_nothing_happens_twice_when_nothing_happens(front: Front) -> None:
    finish(front, begin(front, count=60), count=60)
    assert set(times(front, "ended").values()) == {1}


def test_a_host_that_dies_loses_no_task(front: Front) -> None:
    front.notices_soon()
    process = begin(front)
    under_way(front)
    front.lab.host("lab3").kill()
    front.remains.add("lab3")
    finish(front, process)


def test_a_host_that_died_is_used_again_when_it_is_back(front: Front) -> None:
    front.notices_soon()
    process = begin(front, count=240)
    under_way(front)
    front.hold("lab1", "lab2")
    front.lab.host("lab3").kill()
    front.remains.add("lab3")
    front.lab.host("lab3").start()
    front.until(lambda: front.query("SELECT 1 FROM note WHERE node = 'lab3'"), "the loss is noticed")
    works_again(front)
    finish(front, process, count=240)


def test_a_short_cut_of_the_cable_costs_nothing(front: Front) -> None:
    process = begin(front)
    under_way(front)
    host = front.lab.host("lab3")
    host.cut()
    done = len(front.done())
    front.until(lambda: len(front.done()) > done + 10, "the others go on")
    host.mend()
    err = finish(front, process)
    assert not front.query("SELECT 1 FROM note WHERE node = 'lab3' AND task = 0"), err
    assert set(times(front, "started").values()) == {1}


def test_a_long_cut_is_noticed_and_the_host_used_again(front: Front) -> None:
    front.notices_soon()
    process = begin(front, count=320)
    under_way(front)
    host = front.lab.host("lab3")
    host.cut()
    front.hold("lab1", "lab2")
    front.until(
        lambda: front.query("SELECT 1 FROM note WHERE node = 'lab3' AND text LIKE '%silent%'"), "it is given up"
    )
    front.nothing_left([host])  # its executor gives the front end up, too
    host.mend()
    works_again(front)
    finish(front, process, count=320)


def test_a_host_that_hangs_is_given_up_and_used_again(front: Front) -> None:
    front.notices_soon()
    process = begin(front, count=320)
    under_way(front)
    host = front.lab.host("lab3")
    host.hang()
    front.hold("lab1", "lab2")
    front.until(
        lambda: front.query("SELECT 1 FROM note WHERE node = 'lab3' AND text LIKE '%silent%'"), "it is given up"
    )
    host.resume()
    works_again(front)
    finish(front, process, count=320)


def test_a_hung_host_with_a_full_pipe_does_not_hold_up_the_end(front: Front) -> None:
    front.notices_soon()
    (front.home / "big").write_bytes(bytes(60_000_000))
    front.lab.host("lab3").slow(rate_bit_s=50e6)
    process = front.start("run", "cat {in} | wc -c", "big", *front.on("lab3"))
    front.until(lambda: front.query("SELECT 1 FROM bundle"), "it is sent")
    front.lab.host("lab3").hang()
    front.until(lambda: front.query("SELECT 1 FROM note WHERE text LIKE '%silent%'"), "it is given up")
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_a_slow_link_is_not_a_lost_host(front: Front) -> None:
    front.lab.host("lab3").slow(rate_bit_s=1e6, delay_ms=100)
    process = begin(front, count=200)
    finish(front, process, count=200)
    assert not front.query("SELECT 1 FROM note WHERE node = 'lab3'")
    assert on_two(front, "lab3") > 0


def agents_of(host: Host) -> list[int]:
    """The executor on a host: its process is the one that has children of its own, each a lane."""
    script = "ps -eo pid=,ppid=,args= | awk '/zlib/ && !/awk/ {print $1}'"
    return [int(word) for word in host.run(["sh", "-c", script]).stdout.split()]


def kill_agent(host: Host) -> None:
    pids = agents_of(host)
    assert pids
    for pid in pids:
        host.run(["kill", "-9", str(pid)])


def kill_sshd(host: Host) -> None:
    script = "ps -eo pid=,ppid=,comm= | awk '$3 ~ /^sshd/ && $1 != 1 {print $1}' | xargs kill -9"
    host.run(["sh", "-c", script])


@pytest.mark.parametrize("how", [kill_agent, kill_sshd])
def test_an_executor_that_is_killed_is_started_again(front: Front, how: Callable[[Host], None]) -> None:
    process = begin(front, count=240)
    under_way(front)
    front.remains.add("lab3")  # until an executor that comes later sweeps it
    front.hold("lab1", "lab2")
    how(front.lab.host("lab3"))
    front.until(lambda: front.query("SELECT 1 FROM note WHERE node = 'lab3'"), "the loss is noticed")
    works_again(front)
    finish(front, process, count=240)


def test_a_killed_front_end_leaves_nothing_and_what_it_had_is_not_done_again(front: Front) -> None:
    process = begin_part(front)
    front.until(lambda: len(front.done()) >= 60, "a third")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(40)
    front.nothing_left(front.lab.hosts)
    let_the_rest_go(front)
    done = front.done()
    assert 60 <= len(done) < COUNT
    stamps = {task: (front.home / f"o/{task}").stat().st_mtime_ns for task in done}
    finish(front, front.start("resume"))
    ended = times(front, "ended")
    assert {ended[task] for task in done} == {1}
    assert {task: (front.home / f"o/{task}").stat().st_mtime_ns for task in done} == stamps


def test_what_a_killed_executor_left_is_swept_by_the_next(front: Front) -> None:
    host = front.lab.host("lab1")
    process = front.start("run", "sleep 60", "--each", "1..2", *front.on("lab1"))
    front.until(lambda: agents_of(host), "an executor")
    front.until(lambda: len(host.run(["pgrep", "-f", "^sleep 60"]).stdout.split()) == 2, "both tasks run")
    os.kill(process.pid, signal.SIGSTOP)  # so that it starts no other one
    for what in ("python", "sleep"):  # tasks that had begun are nobody's then
        host.run(
            ["sh", "-c", f"ps -eo pid=,user=,args= | awk '$2 != \"root\" && /{what}/ {{print $1}}' | xargs kill -9"]
        )
    process.kill()
    process.wait(40)
    left = host.run(["sh", "-c", "ls -d /tmp/serai-*"]).stdout.split()
    assert left
    host.run(["touch", "-d", "1 minute ago", *left], check=True)
    (front.home / ".state").rename(front.home / ".before")
    done = front.run("run", "ls -d /tmp/serai-*", "--each", "1..1", *front.on("lab1"))
    assert done.returncode == 0, done.stderr
    assert not set(left) & set(done.stdout.split())


def test_when_all_hosts_are_gone_the_run_says_why_and_can_be_resumed(front: Front) -> None:
    front.notices_soon()
    front.patience["tries"] = 1
    process = begin_part(front)
    front.until(lambda: len(front.done()) >= 20, "a start")
    for host in front.lab.hosts:
        host.kill()
        front.remains.add(host.name)
    _, err = process.communicate(timeout=150)
    assert process.returncode == 3, err
    for host in front.lab.hosts:
        assert f"tried: {host.name}: " in err, err
    assert "serai resume" in err
    done = front.done()
    front.lab.host("lab2").start()
    let_the_rest_go(front)
    finish(front, front.start("resume", *front.on("lab2", slots=12)))
    ended = times(front, "ended")
    assert all(ended.get(task, 1) == 1 for task in done)
