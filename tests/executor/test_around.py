"""What an agent says of devices and of the way to other hosts, on every version of Python that nodes may have."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

from tests.executor.conftest import until

from serai.travel.executor.devices import disks, gpus
from serai.travel.executor.reach import Reach, connect_time

TRAVEL = Path(sys.modules["serai.travel.executor.devices"].__file__ or "").parent


def test_gpus_and_disks_are_read_from_where_linux_tells_of_them(tmp_path: Path) -> None:
    def put(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    assert gpus(str(tmp_path)) == []
    assert disks(str(tmp_path)) == []
    put("proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t NVIDIA A100\nIRQ:   5\n")
    put("dev/kfd", "")
    put("sys/class/drm/renderD128/device/vendor", "0x1002\n")
    put("sys/class/drm/renderD129/device/vendor", "0x8086\n")
    assert gpus(str(tmp_path)) == ["NVIDIA A100", "AMD"]
    for name, sectors, turns in (
        ("sda", "2048", "1"),
        ("nvme0n1", "4096", "0"),
        ("loop0", "8", "0"),
        ("sdb", "0", "0"),
    ):
        put(f"sys/block/{name}/size", sectors)
        put(f"sys/block/{name}/queue/rotational", turns)
    assert disks(str(tmp_path)) == [
        {"name": "nvme0n1", "bytes": 2 << 20, "turns": False},
        {"name": "sda", "bytes": 1 << 20, "turns": True},
    ]


def test_they_run_where_nodes_run_them(python: str) -> None:
    program = "import json, devices, reach; print(json.dumps([devices.gpus(), devices.disks(), reach.Reach().found]))"
    done = subprocess.run([python, "-c", program], cwd=TRAVEL, capture_output=True, text=True, check=True, timeout=60)
    assert len(json.loads(done.stdout)) == 3


def test_the_way_to_others_is_measured_aside() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # without listening: it refuses, and nobody else gets the port meanwhile
        port, closed = server.getsockname()[1], nobody.getsockname()[1]
        reach = Reach()
        reach.measure([["127.0.0.1", port], ["127.0.0.1", closed]])
        until(lambda: reach.found, "both were tried")
        near = reach.found[f"127.0.0.1:{port}"]
        assert near is not None
        assert 0 < near < 2
        assert reach.found[f"127.0.0.1:{closed}"] is None
    assert connect_time("127.0.0.1", 1 << 20) is None
