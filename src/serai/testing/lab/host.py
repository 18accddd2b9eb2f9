"""One host of a laboratory, and everything bad that can happen to it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serai.errors import DeadlineExceeded, HostUnreachable, SeraiError, UsageError
from serai.testing.lab import disk, process, ssh_files
from serai.testing.lab.needs import program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SCRIPT = Path(__file__).with_name("host.sh")
SLOW_CABLE = Path(__file__).with_name("slow_cable.py")
NETWORK = "10.77.0"
BURST_S = 0.01  # what the kernel lets through at once after a rest
LEAST_BURST_BYTES = 1 << 12
BUFFER_S, BUFFER_BYTES = 0.2, 1 << 18  # what waits at most, as in slow_cable.py
MOST_HOSTS = 250
START_LIMIT_S = 30.0
STEP_LIMIT_S = 20.0  # for one step that takes milliseconds on a machine at rest


@dataclass(frozen=True, slots=True)
class HostPlan:
    """What a host is made from.

    Attributes:
        number: from 1; the last part of its address.
        name: what it calls itself, and is called in the ssh_config.
        disk_bytes: the size of its disk, which holds everything that is written on it.
        root: the lower layer of its root.
        python: the directory of an interpreter of its own, or None for the machine's /usr/bin/python3.
    """

    number: int
    name: str
    disk_bytes: int
    root: Path
    python: Path | None

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        return f"{NETWORK}.{self.number}"

    @property
    def hardware_address(self) -> str:
        """Made from the address, so that nobody remembers a wrong one when the host is started again."""
        return "02:00:" + ":".join(f"{int(part):02x}" for part in self.address.split("."))


class Host:
    """A host: made, started and ended by its `Lab`.

    Attributes:
        name: as in the ssh_config.
        address: its IPv4 address in the laboratory's network.
        user: who logs in over ssh when nothing else is said; `root` can, too.
    """

    def __init__(self, plan: HostPlan, *, lab_pid: int, log: Path, furnish: Callable[[Path], None]) -> None:
        self.name = plan.name
        self.address = plan.address
        self.user = disk.USER
        self._plan = plan
        self._lab_pid = lab_pid
        self._log = log
        self._furnish = furnish
        self._furnished = False
        self._started: subprocess.Popen[bytes] | None = None
        self._first: tuple[int, int] | None = None  # its process 1: the number outside, and a descriptor of it
        self._slow_cable: subprocess.Popen[bytes] | None = None
        self._slow_in_kernel = False

    @property
    def _cable(self) -> str:
        return f"v{self._plan.number}"

    @property
    def is_up(self) -> bool:
        """Whether it has power: a host that hangs or is cut off has."""
        return self._started is not None and self._started.poll() is None

    def run(
        self,
        command: Sequence[str],
        *,
        timeout_s: float = 30.0,
        input_text: str | None = None,
        user: str = "root",
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the host without ssh, to its end.

        Args:
            command: the program, found on the host's PATH, and its arguments.
            timeout_s: seconds after which it is killed.
            input_text: its standard input; none when None.
            user: "root", or the host's `user`.
            check: whether an exit code other than 0 is an error.

        Raises:
            DeadlineExceeded: it was killed at its deadline.
            HostUnreachable: the host has no power.
            SeraiError: with `check`, it ended badly.
        """
        number, home = {"root": (0, "/root"), self.user: (disk.USER_ID, f"/home/{self.user}")}[user]
        env = {
            "PATH": ssh_files.search_path(own_python=self._plan.python is not None),
            "HOME": home,
            "USER": user,
            "LANG": "C.UTF-8",
        }
        # The outer `timeout` stays outside of the host's process namespace (-F) and waits also while the host hangs.
        # The inner one ends itself with its whole group, whose members the host then reaps: orphans of an outer one
        # would be left to the machine's first process, and a host ends no sooner than they are reaped.
        inside = ["nsenter", "-t", str(self._pid()), "-m", "-n", "-u", "-i", "-p", "-r", "-w", "-F"]
        inside += ["-S", str(number), "-G", str(number)] if number else []
        limit = ["timeout", "--foreground", "-s", "KILL", f"{timeout_s + 1:.3f}"]
        limit += ["timeout", "-s", "KILL", f"{timeout_s:.3f}"]
        began = time.monotonic()
        done = process.run(
            [*inside, *limit, *command], timeout_s=timeout_s + STEP_LIMIT_S, input_text=input_text, env=env
        )
        if done.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL} and time.monotonic() - began >= timeout_s:
            raise DeadlineExceeded(f"no end within {timeout_s:g} s", host=self.name, command=shlex.join(command))
        if check and done.returncode:
            words = done.stderr[-2000:].strip() or None
            raise SeraiError(f"exit code {done.returncode}", host=self.name, command=shlex.join(command), hint=words)
        return done

    def kill(self) -> None:
        """Cut its power: every process ends at once, and nobody is told, since its cable is pulled first."""
        self._slow_in_kernel = False  # what the kernel keeps goes with the cable
        self._end_slow_cable()
        if self.is_up:
            # A process that is killed closes its connections; a host without power does not.
            self._links(f"link del {self._cable}", check=False)
        self._end()

    def start(self, *, fresh_disk: bool = False, within_s: float = START_LIMIT_S) -> None:
        """Give it power again, and return when its sshd answers. Its address and host key are those it had.

        Args:
            fresh_disk: whether it comes with the disk of a new host, or with what was written on the old one's.
            within_s: seconds until it must answer.

        Raises:
            UsageError: it has power.
            HostUnreachable: it does not answer in time; the hint is the end of its log.
        """
        self.boot(fresh_disk=fresh_disk)
        self.await_sshd(deadline=time.monotonic() + within_s)

    def boot(self, *, fresh_disk: bool = False) -> None:
        """Give it power, and do not wait."""
        if self.is_up:
            raise UsageError("it is up already", host=self.name)
        self._end()
        if fresh_disk and self._furnished:
            at, size = self._disk, self._plan.disk_bytes
            self._in_lab_mounts(f"umount -l {at} && mount -t tmpfs -o mode=755,size={size} tmpfs {at}")
            self._furnished = False
        if not self._furnished:
            upper = self._lab_view(f"{self._disk}/up")
            upper.mkdir(mode=0o755)
            self._furnish(upper)
            self._furnished = True
        sshd = program("sshd")
        assert sshd is not None  # a laboratory is not made without it
        python = str(self._plan.python) if self._plan.python is not None else ""
        lab = ["nsenter", "-t", str(self._lab_pid), "-n", "-m", "-p"]
        own = ["unshare", "-n", "-m", "-u", "-i", "-p", "-f", "--kill-child", "--propagation", "private"]
        plan = self._plan
        facts = [plan.name, plan.address, plan.hardware_address, self._cable, str(plan.root), sshd, python]
        with self._log.open("ab") as log:
            self._started = subprocess.Popen(
                [*lab, *own, "sh", str(SCRIPT), *facts],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # a Ctrl-C at the terminal is for the front end
            )

    def await_sshd(self, *, deadline: float) -> None:
        """Return when sshd has said its name on port 22 (`deadline` is on the clock of `time.monotonic`)."""
        while time.monotonic() < deadline and self.is_up:
            if self._first is None:
                self._find_first()
            elif process.name_of(self._first[0]).startswith("sshd"):
                left_s = max(0.01, deadline - time.monotonic())
                if process.greeting(self._lab_pid, self.address, timeout_s=min(left_s, 2.0)).startswith(b"SSH-"):
                    return
            time.sleep(process.POLL_S)
        what = "its sshd did not answer in time" if self.is_up else "it ended while it started"
        said = self._log.read_text(encoding="utf-8", errors="replace")[-2000:].strip()
        raise HostUnreachable(what, host=self.name, hint=f"its log: {said or 'empty'}")

    def cut(self) -> None:
        """Cut its cable: packets are lost both ways, and no connection is reset."""
        self._pid()
        self._links(f"link set {self._cable} down")

    def mend(self) -> None:
        """Mend its cable; connections that have not been given up go on."""
        self._pid()
        self._links(f"link set {self._cable} up")

    def slow(self, rate_bit_s: float | None = None, delay_ms: float = 0.0) -> None:
        """Make its cable slow until `slow(None)`, or until it loses power.

        Args:
            rate_bit_s: bits per second, each way; None for no limit.
            delay_ms: milliseconds by which each packet is late, each way: a round trip takes twice that.

        A rate alone is kept by the kernel where it can (a token bucket at both ends), which takes no processor time of
        a program's; else, and for a delay, a program carries the frames.
        """
        self._pid()
        rate = rate_bit_s or 0.0
        if rate < 0 or delay_ms < 0:
            raise UsageError("a rate and a delay are not negative", host=self.name)
        self._end_slow_cable()
        if not rate and not delay_ms:
            return
        if not delay_ms and self._limit(rate):
            return
        bridge_end, far_end = f"s{self._plan.number}", f"q{self._plan.number}"
        self._links(
            f"link add {bridge_end} type veth peer name {far_end}",
            f"link set {self._cable} nomaster arp off",
            f"link set {far_end} arp off up",
            f"link set {bridge_end} master br0 up",
        )
        facts = [self._cable, far_end, repr(rate), repr(delay_ms / 1000)]
        self._slow_cable = subprocess.Popen(
            ["nsenter", "-t", str(self._lab_pid), "-n", sys.executable, "-IS", str(SLOW_CABLE), *facts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        if process.first_word(self._slow_cable, within_s=STEP_LIMIT_S) != b"up\n":
            self._end_slow_cable()
            raise SeraiError("its slow cable did not start", host=self.name)

    def fill_disk(self, leave_bytes: int = 0) -> None:
        """Leave only so many bytes of its disk free.

        No memory is used for it: the disk shrinks around what it holds.
        """
        for attempt in range(10):
            facts = os.statvfs(self._lab_view(self._disk))
            size = (facts.f_blocks - facts.f_bfree) * facts.f_frsize + leave_bytes
            try:
                self._in_lab_mounts(f"mount -o remount,size={max(size, facts.f_frsize)} {self._disk}")
            except SeraiError:  # the host wrote in the meantime, and a disk cannot hold more than its size
                if attempt == 9:
                    raise
            else:
                return

    def free_disk(self) -> None:
        """Give its disk the size again that it had at first."""
        self._in_lab_mounts(f"mount -o remount,size={self._plan.disk_bytes} {self._disk}")

    def hang(self) -> None:
        """Stop everything in it: connections are accepted by its kernel, and nobody answers."""
        pid = self._pid()
        self._signal_first(signal.SIGSTOP)  # first, so that it starts nothing new
        self._signal_others(pid, "STOP")

    def resume(self) -> None:
        """Let everything in it go on."""
        pid = self._pid()
        self._signal_others(pid, "CONT")
        self._signal_first(signal.SIGCONT)

    @property
    def _disk(self) -> str:
        return f"/run/hosts/{self.name}"

    def _lab_view(self, path: str) -> Path:
        return Path(f"/proc/{self._lab_pid}/root{path}")

    def _pid(self) -> int:
        if not self.is_up:
            raise HostUnreachable("it has no power", host=self.name, hint="start() it")
        process.wait_until(
            lambda: self._find_first() or not self.is_up,
            within_s=STEP_LIMIT_S,
            what="its first process",
            host=self.name,
        )
        if self._first is None:
            raise HostUnreachable("it ended while it started", host=self.name)
        return self._first[0]

    def _find_first(self) -> bool:
        if self._first is None and self._started is not None:
            unshare = process.only_child(self._started.pid)
            first = process.only_child(unshare) if unshare is not None else None
            if first is not None and process.name_of(first) not in {"", "unshare"}:
                self._first = (first, os.pidfd_open(first))
        return self._first is not None

    def _signal_first(self, number: signal.Signals) -> None:
        assert self._first is not None  # the caller asked for its number
        signal.pidfd_send_signal(self._first[1], number)

    def _signal_others(self, pid: int, name: str) -> None:
        # To -1, from within: the kernel reaches every process of the namespace, and none can fork away from it.
        command = ["nsenter", "-t", str(pid), "-p", "sh", "-c", f"kill -{name} -1 2>/dev/null || true"]
        process.run(command, timeout_s=STEP_LIMIT_S, check=True)

    def _end(self) -> None:
        if self._started is None:
            return
        self._find_first()
        if self._first is None:
            self._started.kill()
        elif self.is_up:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and its `unshare` not yet
                signal.pidfd_send_signal(self._first[1], signal.SIGKILL)
        self._started.wait(STEP_LIMIT_S)
        if self._first is not None:
            os.close(self._first[1])
        self._started = self._first = None

    def _limit(self, rate_bit_s: float) -> bool:
        """Limit what is sent from both ends; False where the kernel has no token bucket, and nothing is changed."""
        burst = max(LEAST_BURST_BYTES, round(rate_bit_s * BURST_S / 8))
        limit = max(BUFFER_BYTES, round(rate_bit_s * BUFFER_S / 8))
        bucket = ["tbf", "rate", f"{round(rate_bit_s)}bit", "burst", str(burst), "limit", str(limit)]
        for command in self._at_both_ends("replace", *bucket):
            if program("tc") is None or process.run(command, timeout_s=STEP_LIMIT_S).returncode:
                self._unlimit()
                return False
        self._slow_in_kernel = True
        return True

    def _unlimit(self) -> None:
        for command in self._at_both_ends("del"):  # fails where there is none
            process.run(command, timeout_s=STEP_LIMIT_S)
        self._slow_in_kernel = False

    def _at_both_ends(self, verb: str, *bucket: str) -> list[list[str]]:
        ends = [(self._lab_pid, self._cable)] + ([(self._first[0], "eth0")] if self._first is not None else [])
        tc = program("tc") or "tc"
        return [
            ["nsenter", "-t", str(pid), "-n", tc, "qdisc", verb, "dev", device, "root", *bucket] for pid, device in ends
        ]

    def _end_slow_cable(self) -> None:
        if self._slow_in_kernel:
            self._unlimit()
        if self._slow_cable is None:
            return
        self._slow_cable.kill()
        self._slow_cable.communicate()
        self._slow_cable = None
        self._links(f"link del s{self._plan.number}", check=False)
        self._links(f"link set {self._cable} master br0 arp on", check=False)

    def _links(self, *commands: str, check: bool = True) -> None:
        batch = ["nsenter", "-t", str(self._lab_pid), "-n", "ip", "-batch", "-"]
        text = "".join(f"{command}\n" for command in commands)
        process.run(batch, timeout_s=STEP_LIMIT_S, input_text=text, check=check)

    def _in_lab_mounts(self, script: str) -> None:
        command = ["nsenter", "-t", str(self._lab_pid), "-m", "sh", "-c", script]
        process.run(command, timeout_s=STEP_LIMIT_S, check=True)
