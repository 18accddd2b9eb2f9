"""On hosts with nothing but sshd: a task there reads what only the front end has, over the connection that is there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.mount.mounting import until

from serai.access.openssh import Connection, Target
from serai.adverts.gateway import Gateway
from serai.clock import SystemClock
from serai.data.afar import Reach
from serai.travel import boot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serai.testing.lab import Host, Lab

DATA = random.Random(21).randbytes(20_000_000)  # noqa: S311 - the same each time
DEADLINE_S = 4.0
PATIENT_S = 40.0  # where nothing is lost


@pytest.fixture
def short() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sr-", dir="/tmp"))  # for a socket
    yield path
    shutil.rmtree(path)


class Node:
    """A host's user, the way to the front end, and the program."""

    def __init__(self, host: Host, gateway: Gateway, connection: Connection) -> None:
        self.host = host
        connection.forward_back("/home/user/g", gateway.address)
        self.sh("umask 077; cat > token; mkdir -p task", gateway.token)
        self.sh("cat > mount.py", boot.script("mount.wrap"))

    def sh(self, script: str, text: str | None = None) -> str:
        done = self.host.run(["sh", "-c", f"cd ~ && {script}"], user=self.host.user, input_text=text)
        return done.stdout + done.stderr

    def task(self, name: str, url: str, script: str, deadline_s: float = DEADLINE_S) -> str:
        """Run a task whose file is seen at ``../NAME/big``."""
        source = {"kind": "gateway", "url": url, "address": "/home/user/g", "token_file": "/home/user/token"}
        setup = {
            "argv": ["sh", "-c", script],
            "directory": f"/home/user/{name}",
            "files": {"big": source | {"silent_s": deadline_s}},
            "record": "/home/user/record",
            "deadline_s": deadline_s,
        }
        self.sh(f"cat > {name}.json", json.dumps(setup))
        return self.sh(f"cd task && python3 -IS ../mount.py ../{name}.json; echo code $?")


@pytest.mark.lab
def test_a_task_on_a_host_reads_a_part_of_what_the_front_end_has(lab: Lab, tmp_path: Path, short: Path) -> None:
    host = lab.hosts[1]
    (tmp_path / "big").write_bytes(DATA)
    url = f"local:{tmp_path}/big"
    target = Target(host.name, config=str(lab.ssh_config))
    connection = Connection(target, control_dir=short, clock=SystemClock(), interactive=False)
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(Gateway(Reach(lambda one: one == url).handlers(), short))
        stack.callback(connection.close)
        connection.open()
        node = Node(host, gateway, connection)
        stack.callback(lambda: node.sh("rm -rf g token task mount.py record one* two* three*"))

        script = "dd if=../one/big bs=100000 skip=120 count=10 status=none | md5sum"
        said = node.task("one", url, script, PATIENT_S)
        assert said.split()[0] == hashlib.md5(DATA[12_000_000:13_000_000], usedforsecurity=False).hexdigest(), said
        record = json.loads(node.sh("tail -1 record"))
        assert (record["size"], record["url"]) == (len(DATA), url)
        assert 1_000_000 <= record["read_bytes"] <= 1_500_000
        assert record["moved_bytes"] <= 2_500_000

        answers: list[str] = []
        script = """head -c 1000 ../two/big | wc -c; touch ../cut; while [ -e ../cut ]; do sleep 0.05; done
                    dd if=../two/big of=/dev/null bs=1M skip=10"""
        thread = threading.Thread(target=lambda: answers.append(node.task("two", url, script)))
        thread.start()
        until(lambda: "cut" in node.sh("ls").split(), "it has begun")
        host.cut()
        stack.callback(host.mend)
        node.sh("rm cut")
        thread.join(DEADLINE_S * 2 + 40)
        assert not thread.is_alive()
        assert "Input/output error" in answers[0]
        assert "code 1" in answers[0]
        host.mend()
        script = "head -c 5 ../three/big | wc -c"
        until(lambda: node.task("three", url, script).split()[0] == "5", "the link is used again", 60)
