"""``s3://`` against moto's S3 server on loopback, as a library, as commands and as inputs of tasks."""

from __future__ import annotations

import io
import itertools
import os
import pickle
import random
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from fsspec.tests import abstract
from moto.server import ThreadedMotoServer

from serai.access.files import filesystem_for
from serai.access.stores.objects import S3FileSystem
from serai.data.afar import FarSource
from serai.errors import HostUnreachable, LoginRefused, UsageError
from serai.session.context import Context, Session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "sesame/never+told"  # noqa: S105 - of a server on loopback
_count = itertools.count()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [one for one in os.environ if one.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def bucket(endpoint: str) -> str:
    name = f"bucket{next(_count)}"
    S3FileSystem(endpoint).mkdir(name)
    return name


def serai(*words: str, code: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "serai", *words], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert SECRET not in done.stdout + done.stderr
    return done.stdout, done.stderr


class TestSuites(
    abstract.AbstractFixtures, abstract.AbstractOpenTests, abstract.AbstractPipeTests, abstract.AbstractPutTests
):
    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False

    @pytest.fixture
    def fs(self, endpoint: str) -> Any:
        return S3FileSystem(endpoint)

    @pytest.fixture
    def fs_path(self, bucket: str) -> str:
        return bucket


def test_what_is_put_into_a_directory_makes_it(endpoint: str, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 1000)
    serai("cp", f"{tmp_path}/x", f"s3://{bucket}/new/y?endpoint={endpoint}")
    serai("cp", f"{tmp_path}/x", f"s3://{bucket}/newer/?endpoint={endpoint}")
    fs = S3FileSystem(endpoint)
    assert sorted(fs.find(bucket)) == [f"{bucket}/new/y", f"{bucket}/newer/x"]
    assert serai("ls", f"s3://{bucket}/new*?endpoint={endpoint}", "-d")[0].split() == [
        f"s3://{bucket}/{name}?endpoint={endpoint}" for name in ("new", "newer")
    ]
    assert "No such file or directory" in serai("stat", f"s3://{bucket}/none?endpoint={endpoint}", code=1)[1]


def test_the_commands_do_with_objects_what_they_do_with_files(endpoint: str, bucket: str, tmp_path: Path) -> None:
    there = f"s3://{bucket}/tree?endpoint={endpoint}"
    source = random.Random(1)  # noqa: S311 - data of a test
    files = {f"d{n % 2}/f{n}": source.randbytes(1000 * n) for n in range(40)} | {"large": source.randbytes(9_000_000)}
    for name, data in files.items():
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_bytes(data)
    told = serai("cp", "-rv", f"{tmp_path}/here", there)[0]
    assert f"-> 's3://{bucket}/tree/d1/f1?endpoint={endpoint}'\n" in told  # as it can be given to a command again
    fs = S3FileSystem(endpoint)
    assert {name: fs.cat_file(f"{bucket}/tree/{name}") for name in files} == files
    assert serai("ls", there)[0].split() == ["d0", "d1", "large"]
    fs.pipe_file(f"{bucket}/tree/text", "grüß\n".encode())
    assert serai("cat", f"s3://{bucket}/tree/text?endpoint={endpoint}")[0] == "grüß\n"
    fs.rm_file(f"{bucket}/tree/text")
    assert "1000" in serai("stat", f"s3://{bucket}/tree/d1/f1?endpoint={endpoint}")[0]
    assert serai("du", "-s", there)[0].split()[0].startswith("9")
    told = serai("cp", "-rv", there, f"{tmp_path}/back")[0]
    assert f"'s3://{bucket}/tree/d0/f2?endpoint={endpoint}' -> '{tmp_path}/back/d0/f2'\n" in told
    assert {name: (tmp_path / "back" / name).read_bytes() for name in files} == files
    (tmp_path / "here/d0/f2").write_bytes(b"changed")
    (tmp_path / "here/d0/f4").unlink()
    serai("sync", "--delete", f"{tmp_path}/here", there)
    assert fs.cat_file(f"{bucket}/tree/d0/f2") == b"changed"
    assert not fs.exists(f"{bucket}/tree/d0/f4")
    serai("rm", "-r", there)
    assert fs.find(f"{bucket}/tree") == []


def test_tasks_have_objects_as_inputs(
    endpoint: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    S3FileSystem(endpoint).pipe({f"{bucket}/in{n}.txt": b"one two\n" * n for n in (1, 2)})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert sorted(serai("run", "wc -w {in}", f"s3://{bucket}/in*.txt")[0].split()[::2]) == ["2", "4"]


def test_inputs_keep_the_service_that_the_url_names(
    endpoint: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    S3FileSystem(endpoint).pipe({f"{bucket}/in{n}.txt": b"a " * (n + 1) for n in range(2)})
    wanted = {"in0.txt": "2 in0.txt", "in1.txt": "4 in1.txt"}
    for out, names in (("pattern", ["in*.txt"]), ("names", ["in0.txt", "in1.txt"])):
        urls = [f"s3://{bucket}/{name}?endpoint={endpoint}" for name in names]
        serai("run", 'sh -c \'echo $(wc -c < "$1") $(basename "$1") > "$2"\' sh {in} {out}', *urls, "--out", out)
        assert {path.name: path.read_text(encoding="ascii").strip() for path in (tmp_path / out).iterdir()} == wanted


def test_what_a_mounted_program_writes_becomes_an_object(endpoint: str, bucket: str) -> None:
    source = FarSource(f"s3://{bucket}/d?endpoint={endpoint}")
    source.write("/x", io.BytesIO(b"written"), 7, 0o644)
    assert b"".join(source.read("/x", "", 0, 7)) == b"written"


def test_the_service_is_that_of_the_url_or_of_the_session(endpoint: str, bucket: str) -> None:
    S3FileSystem(endpoint).pipe_file(f"{bucket}/x", b"it")
    filesystem, path = filesystem_for(f"s3://{bucket}/x?endpoint={endpoint}&region=eu-central-1")
    assert (filesystem.cat_file(path), path) == (b"it", f"{bucket}/x")
    assert pickle.loads(pickle.dumps(filesystem)).cat_file(path) == b"it"
    with Session([Context("s3", endpoint=endpoint)]):
        filesystem, path = filesystem_for(f"s3://{bucket}/x")
        assert filesystem.cat_file(path) == b"it"
    assert filesystem_for("s3://b/what?is=this")[1] == "b/what?is=this"
    for wrong in ("?endpoint=ftp://x", "?endpoint=http://me:secret@x", "?region=x&secret=y"):
        with pytest.raises(UsageError) as caught:
            filesystem_for(f"s3://{bucket}/x{wrong}")
        assert "me:secret" not in str(caught.value)


def test_errors_are_the_built_in_ones_or_name_the_service(
    endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = S3FileSystem(endpoint)
    with pytest.raises(FileNotFoundError):
        fs.cat_file(f"{bucket}/no")
    with pytest.raises(FileNotFoundError):
        fs.ls("no-such-bucket-here/x")
    told = dict(fs.pipe_many([(f"{bucket}/a", b"1"), ("no-such-bucket-here/x", b"2")]))
    assert (told[f"{bucket}/a"], type(told["no-such-bucket-here/x"])) == (None, FileNotFoundError)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        for ask in ("ls", "cat_file", "info"):
            with pytest.raises(HostUnreachable, match=dead):
                getattr(S3FileSystem(dead), ask)("bucket/x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(LoginRefused, match="AWS_ACCESS_KEY_ID"):
        S3FileSystem(endpoint, skip_instance_cache=True).ls(bucket)


def test_without_the_package_it_is_said_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from serai.cli import main\nsys.argv = ['serai', 'ls', 's3://b/x']\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode != 0
    assert "serai[s3]" in done.stderr
