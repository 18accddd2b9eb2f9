"""Standard clients against a real appliance, and its ad."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.store.conftest import until

from serai.adverts.service import open_adverts
from serai.match.ads import parse_ad
from serai.match.bilateral import matches, with_storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.store.conftest import Store

DATA = random.Random(2).randbytes(2_000_000)  # noqa: S311 - bytes to compare


def need(command: str) -> str:
    found = shutil.which(command)
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"there is no {command}")
    return found


def test_curl(store: Store, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(DATA)
    assert store.curl("-T", str(tmp_path / "big"), f"{store.url}/curl")[0] == 201
    assert store.curl("-r", "100-199", f"{store.url}/curl")[2] == DATA[100:200]
    (tmp_path / "part").write_bytes(DATA[:1_000_000])
    store.curl("-C", "-", "-o", str(tmp_path / "part"), f"{store.url}/curl")
    assert (tmp_path / "part").read_bytes() == DATA


def test_rclone(store: Store, tmp_path: Path) -> None:
    rclone = need("rclone")
    config = tmp_path / "rclone.conf"
    config.write_text(f"[s]\ntype = webdav\nurl = {store.url}\nvendor = other\nbearer_token = {store.token}\n")
    config.chmod(0o600)

    def run(*words: str) -> str:
        done = subprocess.run(
            [rclone, "--config", str(config), *words], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    for n in range(30):
        path = tmp_path / f"tree/d{n % 3}/é {n}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(DATA[: n * 20_000])
    run("copy", str(tmp_path / "tree"), "s:rclone")
    assert len(run("lsf", "-R", "--files-only", "s:rclone").splitlines()) == 30
    run("check", "--download", str(tmp_path / "tree"), "s:rclone")
    run("moveto", "s:rclone/d0", "s:rclone/moved")
    run("copy", "s:rclone/moved", str(tmp_path / "back"))
    assert (tmp_path / "back/é 27").read_bytes() == DATA[: 27 * 20_000]
    run("purge", "s:rclone")
    assert not (store.room / "rclone").exists()


def test_cadaver(store: Store, tmp_path: Path) -> None:
    cadaver = need("cadaver")
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login me password {store.token}\n")
    (tmp_path / ".netrc").chmod(0o600)
    (tmp_path / "file").write_bytes(DATA)
    script = "mkcol cad\ncd cad\nput file\ncopy file two\nmove two three\nls\nget three back\ndelete file\nquit\n"
    done = subprocess.run(
        [cadaver, f"{store.url}/"],
        input=script.encode(),
        capture_output=True,
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path)},
        check=False,
        timeout=120,
    )
    assert b"failed" not in done.stdout.lower(), done.stdout
    assert (tmp_path / "back").read_bytes() == DATA
    assert os.listdir(store.room / "cad") == ["three"]


def test_its_ad_is_found_and_matched_and_goes_with_it(start: Callable[..., Store], tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/adverts.sqlite"
    (tmp_path / "served/cms").mkdir(parents=True)
    store = start("--adverts", url, "--name", "nestore.bologna", "--size", "1GB", "--attribute", "Tier=2")
    with open_adverts(url) as adverts:
        entry = until(lambda: adverts.get("/stores/nestore.bologna"), "the ad is there")
        found = entry.attributes
        assert entry.expires is not None
        assert (found["Name"], found["TotalDisk"], found["Tier"]) == ("nestore.bologna", 10**9 // 1024, 2)
        assert (found["Datasets"], found["HascmsData"]) == (["cms"], True)
        assert list(found["AccessModes"])[:4] == ["direct", "http", "webdav", "store"]
        assert f"http://127.0.0.1:{store.port}/" in found["AccessURLs"]
        ad = parse_ad("[]")
        for name, value in found.items():
            ad[name] = value
        node = with_storage(parse_ad('[Name = "n1"; NearestStorage = "nestore.bologna"]'), {"nestore.bologna": ad})
        task = parse_ad("[Requirements = TARGET.NearestStorage.HasCMSData && TARGET.NearestStorage.Disk > 1000]")
        assert matches(task, node)
        assert store.stop(signal.SIGTERM) == 0
        assert adverts.get("/stores/nestore.bologna") is None
