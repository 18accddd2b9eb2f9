"""A laboratory: a network of its own with hosts in it, gone without a trace when it is taken down or its maker dies."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from serai.errors import SeraiError, UsageError
from serai.testing.lab import process, ssh_files
from serai.testing.lab.disk import Contents, furnish
from serai.testing.lab.host import MOST_HOSTS, STEP_LIMIT_S, Host, HostPlan
from serai.testing.lab.needs import why_not
from serai.testing.lab.place import Place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCRIPT = Path(__file__).with_name("lab.sh")
DISK_BYTES = 1 << 30
SMALLEST_DISK_BYTES = 1 << 20


class Lab:
    """Hosts that are up; made by `Lab.up`.

    Attributes:
        hosts: in the order of their numbers.
        directory: where its files are.
        ssh_config: for `ssh -F`, by root, from anywhere on this machine.
        pool_file: a pool of all the hosts, in TOML.
    """

    def __init__(self, place: Place, plans: Sequence[HostPlan], net: subprocess.Popen[bytes], pid: int) -> None:
        self.directory = place.path
        self.ssh_config = place.file("ssh_config")
        self.pool_file = place.file("lab.toml")
        self._place = place
        self._net = net
        self._pid = pid
        self.hosts = tuple(
            Host(plan, lab_pid=pid, log=place.file(f"{plan.name}.log"), furnish=functools.partial(self._furnish, plan))
            for plan in plans
        )
        self._names = "127.0.0.1 localhost\n" + "".join(
            f"{host.address} {host.name} {self._full_name(host.name)}\n" for host in self.hosts
        )

    @classmethod
    def up(
        cls,
        count: int,
        *,
        directory: Path | str | None = None,
        prefix: str = "lab",
        disk_bytes: int | Mapping[str, int] = DISK_BYTES,
        pythons: Mapping[str, Path | str] | None = None,
        root: Path | str = "/",
        within_s: float = 60.0,
    ) -> Self:
        """Make hosts and return when the sshd of each answers.

        Args:
            count: how many; they are called by `prefix` and a number from 1.
            directory: for its files, empty or new; None for one below the directory of temporary files.
            prefix: letters and digits.
            disk_bytes: the size of every host's disk, or of some hosts' by name. A disk is kept in memory.
            pythons: by name, the directory of an interpreter (with bin/python3) that a host has first on its PATH.
            root: what the hosts' programs are taken from.
            within_s: seconds until all hosts must answer.

        Raises:
            UsageError: no laboratory can be had here, or the request itself is wrong.
            HostUnreachable: a host does not answer in time.
        """
        reason = why_not()
        if reason is not None:
            raise UsageError("no laboratory can be had", hint=reason)
        plans = _plan(count, prefix, disk_bytes, pythons or {}, Path(root))
        place = Place.claim(Path(directory) if directory is not None else None)
        try:
            net, pid = _network(place, plans)
        except BaseException:
            place.release()
            raise
        lab = cls(place, plans, net, pid)
        try:
            lab._bring_up(time.monotonic() + within_s)
        except BaseException:
            lab.down()
            raise
        return lab

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def host(self, name: str) -> Host:
        """The host of that name; KeyError when there is none."""
        return {host.name: host for host in self.hosts}[name]

    def run(
        self,
        command: Sequence[str],
        *,
        timeout_s: float = 30.0,
        input_text: str | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of this machine inside the laboratory's network, where the hosts' addresses are reached.

        Raises:
            DeadlineExceeded: it took longer than `timeout_s` seconds, and was killed.
            SeraiError: with `check`, it ended badly.
        """
        return process.run(self.inside(command), timeout_s=timeout_s, input_text=input_text, check=check)

    def inside(self, command: Sequence[str]) -> list[str]:
        """The words that run a command of this machine inside the laboratory's network."""
        return ["nsenter", "-t", str(self._pid), "-n", *command]

    def down(self) -> None:
        """End every host, and leave nothing behind. Harmless when done twice."""
        for host in self.hosts:
            host._end_slow_cable()  # noqa: SLF001 - a laboratory and its hosts are one
        if self._net.poll() is None:
            # Without its process 1 a namespace has no process at all, nor has any namespace in it.
            assert self._net.stdin is not None
            self._net.stdin.close()
            try:
                self._net.wait(STEP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self._net.kill()
                self._net.wait(STEP_LIMIT_S)
        for host in self.hosts:
            host._end()  # noqa: SLF001
        self._place.release()

    def _bring_up(self, deadline: float) -> None:
        keys = [self._place.file(name) for name in ("id", *(f"{host.name}.key" for host in self.hosts))]
        for key in keys:
            self._place.file(f"{key.name}.pub")
        ssh_files.make_keys(keys, timeout_s=STEP_LIMIT_S)
        for host in self.hosts:
            host.boot()
        known = [
            (f"{host.name},{self._full_name(host.name)}", host.address, self._place.file(f"{host.name}.key"))
            for host in self.hosts
        ]
        self._place.file("known_hosts").write_text(ssh_files.known_hosts(known), encoding="ascii")
        text = ssh_files.ssh_config(
            [(host.name, self._full_name(host.name), host.address) for host in self.hosts],
            lab_pid=self._pid,
            directory=self.directory,
            user=self.hosts[0].user,
        )
        self.ssh_config.write_text(text, encoding="utf-8")
        sites = [
            f'[[site]]\nurl = "ssh://{host.name}"\nssh_config = {json.dumps(str(self.ssh_config))}\n'
            for host in self.hosts
        ]
        self.pool_file.write_text("\n".join(sites), encoding="utf-8")
        for host in self.hosts:
            host.await_sshd(deadline=deadline)

    def _full_name(self, name: str) -> str:
        # Two laboratories have hosts of the same short name; ssh names its shared connections by what is unique here.
        return f"{name}.lab-{self._pid}"

    def _furnish(self, plan: HostPlan, upper: Path) -> None:
        contents = Contents(
            name=plan.name,
            names=self._names,
            sshd_config=ssh_files.sshd_config(own_python=plan.python is not None),
            host_key=self._place.file(f"{plan.name}.key"),
            authorized_key=self._place.file("id.pub").read_text(encoding="ascii"),
            python=plan.python,
        )
        furnish(upper, plan.root, contents)


def _plan(
    count: int,
    prefix: str,
    disk_bytes: int | Mapping[str, int],
    pythons: Mapping[str, Path | str],
    root: Path,
) -> list[HostPlan]:
    if not 1 <= count <= MOST_HOSTS:
        raise UsageError(f"{count} hosts: a laboratory has 1 to {MOST_HOSTS}")
    if not (prefix.isascii() and prefix.isalnum() and len(prefix) <= 40):
        raise UsageError(f"the prefix {prefix!r} is not made of up to 40 letters and digits")
    names = [f"{prefix}{number}" for number in range(1, count + 1)]
    sizes = {} if isinstance(disk_bytes, int) else disk_bytes
    default_bytes = disk_bytes if isinstance(disk_bytes, int) else DISK_BYTES
    strange = sorted((set(sizes) | set(pythons)) - set(names))
    if strange:
        raise UsageError(f"no such host: {', '.join(strange)}", hint=f"the hosts are {names[0]} to {names[-1]}")
    if min([default_bytes, *sizes.values()]) < SMALLEST_DISK_BYTES:
        raise UsageError(f"a disk has at least {SMALLEST_DISK_BYTES} bytes")
    for python in pythons.values():
        if not os.access(Path(python) / "bin/python3", os.X_OK):
            raise UsageError(f"{python} has no bin/python3")
    return [
        HostPlan(
            number=number,
            name=name,
            disk_bytes=sizes.get(name, default_bytes),
            root=root.resolve(),
            python=Path(pythons[name]).resolve() if name in pythons else None,
        )
        for number, name in enumerate(names, start=1)
    ]


def _network(place: Place, plans: Sequence[HostPlan]) -> tuple[subprocess.Popen[bytes], int]:
    """Start the laboratory's own namespaces; return the process that holds them and the number of process 1 inside."""
    disks = [fact for plan in plans for fact in (plan.name, str(plan.disk_bytes))]
    log_path = place.file("net.log")
    with log_path.open("wb") as log:
        net = subprocess.Popen(
            ["unshare", "-n", "-m", "-p", "-f", "--kill-child", "--propagation", "private", "sh", str(SCRIPT), *disks],
            stdin=subprocess.PIPE,  # ours alone: when we end, however that is, it ends, and the laboratory with it
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    word = process.first_word(net, within_s=STEP_LIMIT_S)
    pid = process.only_child(net.pid) if word == b"up\n" else None
    if pid is not None:
        return net, pid
    net.kill()
    net.communicate()
    words = log_path.read_text(encoding="utf-8", errors="replace")
    raise SeraiError(
        "the laboratory's network did not start", hint=words or f"nothing was said within {STEP_LIMIT_S:g} s"
    )
