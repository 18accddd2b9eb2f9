"""The file commands, as a user runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serai.access import connections, porter
from serai.cli.filing.files import _refuse_what_holds_all
from serai.cli.filing.listing import _in_columns, size_text
from serai.data.copying import opening

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serai.testing.lab import Lab


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to work in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d/sub").mkdir(parents=True)
    for name, data in {"d/a": b"aa\n", "d/b": b"b" * 2000, "d/.dot": b"", "d/sub/c": b"c\n"}.items():
        (tmp_path / name).write_bytes(data)
        os.utime(tmp_path / name, (1_700_000_000 + len(data), 1_700_000_000 + len(data)))
    (tmp_path / "d/l").symlink_to("a")
    return tmp_path


def serai(*words: str | bytes, stdin: bytes = b"", code: int = 0) -> tuple[str, str]:
    """Run it; gives what it printed and what it complained of."""
    done = subprocess.run(
        [sys.executable, "-m", "serai", *words], input=stdin, capture_output=True, check=False, timeout=150
    )
    assert done.returncode == code, done
    return tuple(out.decode("utf-8", "surrogateescape") for out in (done.stdout, done.stderr))  # type: ignore[return-value] # two


def ls(*words: str) -> list[str]:
    """What the machine's own ls prints."""
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    return subprocess.run(["ls", *words], capture_output=True, text=True, check=True, env=env).stdout.splitlines()


@pytest.mark.parametrize(
    "words",
    [
        ["d"], ["-1", "d"], ["-d", "d"], ["-A", "d"], ["-t", "d"], ["-S", "d"], ["-Sr", "d"], ["-R", "d"], ["d/a"],
        ["d", "d/a"], ["d/sub", "d"], [],
    ],
)  # fmt: skip
@pytest.mark.usefixtures("room")
def test_ls_prints_what_ls_prints(words: list[str]) -> None:
    ours = [word if word != "-A" else "-a" for word in words]
    assert serai("ls", *ours)[0].splitlines() == ls(*words)


@pytest.mark.usefixtures("room")
def test_ls_l_has_the_columns_of_ls() -> None:
    ours = [line.split() for line in serai("ls", "-l", "d")[0].splitlines()]
    theirs = [line.split() for line in ls("-l", "d") if not line.startswith("total")]
    assert ours == theirs
    assert serai("ls", "-lh", "d/b")[0].split()[4] == ls("-lh", "d/b")[0].split()[4]


@pytest.mark.usefixtures("room")
def test_errors_are_those_of_unix() -> None:
    assert serai("ls", "nope", "d/a", code=1) == ("d/a\n", "serai: ls: nope: No such file or directory\n")
    assert serai("cat", "d", "d/a", code=1) == ("aa\n", "serai: cat: d: Is a directory\n")
    assert serai("rm", "d", code=1)[1] == "serai: rm: d: Is a directory\n"
    assert serai("rm", "nope", code=1)[1] == "serai: rm: nope: No such file or directory\n"
    assert serai("rm", "-f", "nope") == ("", "")
    assert serai("mkdir", "d", code=1)[1] == "serai: mkdir: d: File exists\n"
    assert serai("mkdir", "x/y", code=1)[1] == "serai: mkdir: x/y: No such file or directory\n"
    assert serai("stat", "d/a/", code=1)[1] == "serai: stat: d/a/: Not a directory\n"
    assert serai("cp", "d", "e", code=1)[1] == "serai: cp: -r not specified; omitting directory 'd'\n"
    assert serai("cp", "nope", "e", code=1)[1] == "serai: cp: cannot stat 'nope': No such file or directory\n"
    for words in (["cp", "d"], ["mv", "d"], ["cat", "--range", "5"], ["cp", "nonesuch://x/y", "d"], ["ls", "--no"]):
        assert serai(*words, code=2)[1]


@pytest.mark.parametrize("what", ["/", "//", "/.", "/tmp/..", "/../", "//tmp/../."])
def test_rm_refuses_the_root(what: str) -> None:
    """Asked of the function that refuses: what removes is not even begun with such a name."""
    with pytest.raises(OSError, match="refusing"):
        _refuse_what_holds_all(opening.open_place(what))


def test_rm_refuses_home_and_what_dots_stand_for(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = room / "home"
    home.mkdir()
    (room / "tohome").symlink_to("home")
    monkeypatch.setenv("HOME", str(home))
    for what in (".", "..", "d/..", "./", "home", str(home), "home/", "d/../home"):
        assert "refusing" in serai("rm", "-rf", what, code=1)[1], what
    assert home.is_dir()
    assert (room / "d/sub/c").exists()
    serai("rm", "-rf", "tohome", "d")
    assert os.listdir(room) == ["home"]


def test_names_of_any_bytes_go_through(room: Path) -> None:
    names = [b"-r", b"new\nline", b"\xff\xfe", "ünï".encode(), b"a b", b"*"]
    (room / "odd").mkdir()
    for name in names:
        Path(os.fsdecode(b"odd/" + name)).write_bytes(name)
    out, _ = serai("ls", "odd")
    assert out.encode("utf-8", "surrogateescape") == b"\n".join(sorted(names)) + b"\n"
    assert serai("cp", "-r", "odd", "copy") == ("", "")
    assert sorted(os.listdir(b"copy")) == sorted(names)
    os.chdir("copy")
    for name in names:
        assert serai("cat", b"--", name)[0].encode("utf-8", "surrogateescape") == name
        serai("rm", b"--", name)
        assert not os.path.lexists(name)


@pytest.mark.usefixtures("room")
def test_cat_prints_ranges_and_standard_input() -> None:
    assert serai("cat", "d/a", "-", "d/sub/c", stdin=b"in\n")[0] == "aa\nin\nc\n"
    assert serai("cat", "--range", "1:2", "d/a")[0] == "a"
    assert serai("cat", "--range", "1:", "d/a")[0] == "a\n"
    assert serai("cat", "--range", ":1", "d/a", "d/sub/c")[0] == "ac"
    assert serai("cat", "--range", "50:60", "d/a")[0] == ""


@pytest.mark.usefixtures("room")
def test_cp_takes_standard_input_and_gives_standard_output() -> None:
    serai("cp", "-", "e", stdin=b"bytes")
    assert Path("e").read_bytes() == b"bytes"
    assert serai("cp", "e", "d/a", "-")[0] == "bytesaa\n"
    assert serai("cp", "-", "d", stdin=b"x", code=1)[1] == "serai: cp: d: Is a directory\n"


@pytest.mark.usefixtures("room")
def test_mkdir_stat_du_and_mv() -> None:
    serai("mkdir", "-p", "x/y/z", "-m", "750")
    assert Path("x/y/z").stat().st_mode & 0o777 == 0o750
    serai("mkdir", "-p", "x/y/z")
    assert serai("stat", "-c", "%n %s %a %F %Y %N %%", "d/a", "d/l")[0].splitlines() == [
        "d/a 3 644 regular file 1700000003 d/a %",
        "d/l 1 777 symbolic link " + str(int(Path("d/l").lstat().st_mtime)) + " d/l -> a %",
    ]
    assert "Access: (644/-rw-r--r--)" in serai("stat", "-L", "d/l")[0]
    assert serai("du", "d")[0] == "2\td/sub\n2006\td\n"
    assert serai("du", "-s", "d")[0] == "2006\td\n"
    assert serai("mv", "-v", "d", "x")[0] == "'d' -> 'x/d'\n"
    assert serai("mv", "x", "x/d", code=1)[1].startswith("serai: mv: cannot move 'x' to a subdirectory of itself")


@pytest.mark.usefixtures("room")
def test_sync_lists_and_does() -> None:
    Path("e").mkdir()
    Path("e/old").touch()
    listed = serai("sync", "-n", "--delete", "d", "e")[0].splitlines()
    assert listed == ["delete old", "copy d/sub/", "copy d/l", "copy d/.dot", "copy d/a", "copy d/b", "copy d/sub/c"]
    assert sorted(os.listdir("e")) == ["old"]
    assert serai("sync", "--delete", "d", "e") == ("", "")
    assert serai("sync", "-v", "--delete", "d", "e") == ("", "")
    assert serai("sync", "nope", "e", code=1)[1] == "serai: sync: nope: No such file or directory\n"


@pytest.mark.usefixtures("room")
def test_nothing_is_shown_where_there_is_no_terminal_and_progress_where_there_is() -> None:
    assert serai("cp", "d/b", "e") == ("", "")
    script = shutil.which("script")
    if script is None:
        pytest.skip("there is no script(1) that makes a terminal")
    os.mkfifo("fifo")
    for more in ("", " -q"):
        words = [script, "-qec", f"{sys.executable} -m serai cp - e{more} < fifo", "/dev/null"]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            shown = b""
            with open("fifo", "wb") as source:  # the copy is not at its end before it was seen
                source.write(b"some")
                source.flush()
                while not more and b"0 of 1 files" not in shown:
                    data = os.read(process.stdout.fileno(), 4096)
                    assert data, shown
                    shown += data
            shown += process.stdout.read()
        assert process.returncode == 0
        assert (b"0 of 1 files" in shown) == (not more)
    assert not shown


def test_sizes_and_columns() -> None:
    assert [size_text(n, human=True) for n in (None, 0, 999, 1500, 10_240, 1 << 20, 5 << 30)] == [
        "-", "0", "999", "1.5K", "10K", "1.0M", "5.0G",
    ]  # fmt: skip
    assert _in_columns([str(n) * 3 for n in range(7)], 20) == ["000  222  444  666", "111  333  555"]
    assert _in_columns([], 20) == []
    assert _in_columns(["x" * 100, "y"], 20) == ["x" * 100, "y"]


# ---- over ssh


@pytest.fixture(scope="module")
def two_hosts(lab_factory: Any) -> Iterator[Lab]:
    with lab_factory(2, prefix="cli") as lab:
        yield lab
        opening._hosts.clear()
        porter.close_all()
        connections.close_all()


@pytest.mark.lab
def test_commands_work_on_hosts_as_here(two_hosts: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SERAI_SSH_CONFIG", str(two_hosts.ssh_config))
    monkeypatch.chdir(tmp_path)
    one, two = "ssh://cli1/tmp", "ssh://cli2/tmp"
    Path("a").write_text("aa\n")
    serai("cp", "a", f"{one}/")
    serai("cp", "-", f"{two}/b", stdin=b"bb\n")
    assert serai("cat", f"{one}/a", f"{two}/b")[0] == "aa\nbb\n"
    assert serai("ls", f"{one}/*", f"{two}/[a-c]")[0] == f"{one}/a\n{two}/b\n"
    assert serai("ls", "-l", one)[0].split()[2:5] == ["user", "user", "3"]
    assert serai("ls", f"{one}/nope", code=1)[1] == f"serai: ls: {one}/nope: No such file or directory\n"
    assert serai("ls", "/root", "ssh://cli1/root", code=1)[1] == "serai: ls: ssh://cli1/root: Permission denied\n"
    serai("mkdir", "-p", f"{one}/x/y", f"{two}/x/y")
    serai("mv", f"{one}/a", f"{two}/x")
    assert serai("ls", one, f"{two}/x")[0] == f"{one}:\nx\n\n{two}/x:\na\ny\n"
    assert (
        "refusing" in serai("rm", "-rf", "ssh://cli1", "ssh://cli1/", "ssh://cli1/~", "ssh://cli1/home/user", code=1)[1]
    )
    serai("rm", "-r", f"{one}/x", f"{two}/x", f"{two}/b")
    assert serai("ls", one, two)[0] == f"{one}:\n\n{two}:\n"
    assert serai("ls", "ssh://no-such-host.invalid/x", one, code=1)[0] == ""
    said = serai("ls", "ssh://no-such-host.invalid/x", code=1)[1]
    assert said.startswith("serai: ls: ssh://no-such-host.invalid/x: no-such-host.invalid: ")
    assert serai("stat", "-c", "%U", "any://cli1/tmp")[0] == "root\n"


@pytest.mark.parametrize(("operand", "meant"), [("lab1:/tmp", "ssh://lab1/tmp"), ("me@lab1:y", "ssh://me@lab1/~/y")])
def test_scps_way_to_name_a_file_of_a_host_is_refused_with_ours(tmp_path: Path, operand: str, meant: str) -> None:
    words = [sys.executable, "-m", "serai", "cp", "a", operand]
    (tmp_path / "a").write_text("x")
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert meant in done.stderr
    (tmp_path / operand.partition("/")[0]).write_text("a file of this name")
    words = [*words[:3], "cat", operand.partition("/")[0]]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True, check=False).stdout == b"a file of this name"


@pytest.mark.parametrize("words", [("mount", "store://127.0.0.1:1/", "."), ("store", "status", "store://127.0.0.1:1")])
def test_what_is_not_installed_is_said_with_what_brings_it(words: tuple[str, ...]) -> None:
    code = "import sys; sys.modules['urllib3'] = None; from serai.cli import main; main()"
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "serai: this needs urllib3, which is not installed\n  hint: pip install 'serai[store]'\n"
