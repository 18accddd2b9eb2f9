"""Pools of which a part is never there, or cannot run what is asked for: the others work, and the reason is told."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.conftest import HOLD

import serai
from serai.apps.frontends.pool import Options
from serai.dispatch.carrier import Timing
from serai.dispatch.run import Settings
from serai.errors import NeedsUnmet
from serai.pool.members import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import Front

    from serai.testing.lab import Lab
    from serai.testing.lab.fixtures import LabFactory

pytestmark = pytest.mark.lab
TROUBLED = "SELECT 1 FROM note WHERE node = 'lab1'"


def _python(version: str) -> Path:
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*"))
    if not found:
        pytest.skip(f"there is no Python {version} of pyenv's")
    return found[-1]


def changed(front: Front, name: str, **settings: str) -> Path:
    """The laboratory's ssh_config with other settings for one host."""
    lines = [f"Host {name}", *(f"  {key} {value}" for key, value in settings.items())]
    path = front.home / "ssh_config"
    path.write_text("\n".join(lines) + "\n" + front.lab.ssh_config.read_text())
    return path


def wrong_key(front: Front) -> dict[str, str]:
    other = front.home / "other"
    front.lab.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    return {"IdentityFile": str(other), "IdentityAgent": "none"}


def no_host_key(front: Front) -> dict[str, str]:
    (front.home / "known").touch()
    return {"UserKnownHostsFile": str(front.home / "known")}


def unchecked_host_key(front: Front) -> dict[str, str]:
    return no_host_key(front) | {"StrictHostKeyChecking": "no"}


def nobody_there(_front: Front) -> dict[str, str]:
    return {"ProxyCommand": "none", "HostName": "no-such-host.invalid"}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (wrong_key, "no credential was accepted"),
        (no_host_key, "host key is known for lab1"),
        (unchecked_host_key, "host key is known for lab1"),
        (nobody_there, "the name no-such-host.invalid is not known"),
    ],
)
def test_one_host_that_is_never_there_is_told_once(
    front: Front, what: Callable[[Front], dict[str, str]], said: str
) -> None:
    config = changed(front, "lab1", **what(front))
    if what is wrong_key:  # identities add up: the right one must not be named
        text = config.read_text().split("\n")
        config.write_text("\n".join(line for line in text if not (line.startswith("    IdentityFile"))))
        config.write_text(config.read_text() + f"\nHost lab2 lab3\n  IdentityFile {front.lab.directory}/id\n")
    front.hold("lab2")  # else all may be done before it is known
    sites = front.on("lab1", "lab2", slots=3, config=config)
    process = front.start("run", f"{HOLD}sleep 0.1; hostname", "--each", "1..30", *sites)
    front.until(lambda: front.query(TROUBLED), "it is known that it is not there")
    front.let_go()
    done = front.finish(process)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"lab2"}
    assert done.stderr.count(said) == 1, done.stderr
    assert "lab1" in done.stderr


def test_without_an_interpreter_the_others_work(front: Front) -> None:
    sites = [*front.on("lab1", "lab2")]
    sites[1] += "&python=/no/such/python3"
    front.hold("lab2")
    process = front.start("run", f"{HOLD}sleep 0.1; hostname", "--each", "1..20", *sites)
    front.until(lambda: front.query(TROUBLED), "it is known that it has none")
    front.let_go()
    done = front.finish(process)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"lab2"}
    assert done.stderr.count("the interpreter could not be started") == 1, done.stderr
    assert "?python=" in done.stderr


def test_a_login_shell_that_talks_does_no_harm(front: Front) -> None:
    host = front.lab.host("lab1")
    host.run(["sh", "-c", "echo 'echo welcome; echo to lab1 >&2' > ~/.bashrc"], user=host.user, check=True)
    try:
        done = front.run("run", "echo ok", "--each", "1..3", *front.on("lab1"))
    finally:
        host.run(["sh", "-c", "rm ~/.bashrc"], user=host.user)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ok"] * 3


# ---- other interpreters


@pytest.fixture(scope="module")
def pythons(lab_factory: LabFactory) -> Lab:
    """py1 has Python 3.8, py2 the machine's, py3 one that is too old."""
    return lab_factory(3, prefix="py", pythons={"py1": _python("3.8"), "py3": _python("3.6")})


@pytest.fixture
def pool(front: Front, pythons: Lab, tmp_path: Path) -> Iterator[Callable[..., serai.Pool]]:
    settings = Settings(timing=Timing(**front.timing), patience=Patience(**front.patience))  # type: ignore[arg-type]
    with contextlib.ExitStack() as pools:

        def make(*names: str) -> serai.Pool:
            sites = [f"ssh://{name}?slots=2&ssh_config={pythons.ssh_config}" for name in names]
            return pools.enter_context(serai.Pool(*sites, options=Options(settings=settings, runs=tmp_path / "runs")))

        yield make
    front.nothing_left(pythons.hosts)


def where(_number: int) -> str:
    import os  # noqa: PLC0415 - it travels

    return os.uname().nodename


def test_a_node_of_another_python_runs_commands(pool: Callable[..., serai.Pool]) -> None:
    outcomes = list(pool("py1").run("python3 --version", [serai.Item(line="1")]))
    assert outcomes[0].ok, outcomes[0].error
    assert outcomes[0].stdout.startswith(b"Python 3.8.")


def test_functions_go_to_nodes_of_their_python(pool: Callable[..., serai.Pool]) -> None:
    assert set(pool("py1", "py2").map(where, range(8))) == {"py2"}


def test_functions_without_a_node_of_their_python_fail_within_seconds(pool: Callable[..., serai.Pool]) -> None:
    began = time.monotonic()
    future = pool("py1").submit(where, 1)
    with pytest.raises(NeedsUnmet, match=r"function of Python 3\.\d+ and this node has Python 3\.8"):
        future.result(60)
    assert time.monotonic() - began < 40


def test_an_interpreter_that_is_too_old_is_told(pool: Callable[..., serai.Pool]) -> None:
    with pytest.raises(Exception, match=r"(?s)3\.6\.\d+.*Python 3\.8 or newer") as told:
        pool("py3").submit(where, 1).result(60)
    assert "py3" in str(told.value)


def test_a_remote_function_can_be_killed(front: Front, pool: Callable[..., serai.Pool], pythons: Lab) -> None:
    host = pythons.host("py2")

    def run() -> None:
        import subprocess  # noqa: PLC0415 - it travels

        subprocess.run(["setsid", "sleep", "1234"], check=False)

    def sleeps() -> bool:
        return host.run(["pgrep", "-f", "^sleep 1234"]).returncode == 0

    one = pool("py2")
    future = one.submit(run)
    front.until(sleeps, "it runs")
    future.kill()
    front.until(lambda: not sleeps(), "all that it started ends")
    assert future.cancelled() or future.exception(40) is not None
    assert one.submit(where, 1).result(60) == "py2"
