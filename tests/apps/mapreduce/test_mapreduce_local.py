"""MapReduce with real workers on this machine: commands and functions, deaths, stragglers and latecomers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

import serai
from serai.adverts.service import open_adverts
from serai.apps.frontends.mapreduce import Request, run_mapreduce, statistics_of
from serai.apps.mapreduce.job import Job
from serai.apps.mapreduce.run import Running
from serai.apps.mapreduce.tasks import Rules
from serai.apps.mapreduce.timeline import timeline_of
from serai.describe.mapreduce import Binaries, BinaryImage, Commands
from serai.describe.poolfile import sites_from
from serai.errors import AccessError, NoNodeLeft, TaskFailed, UsageError
from serai.travel.boot import WORKER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.apps.mapreduce.conftest import Bench


REDUCE = (
    "LC_ALL=C awk -F '\\t' 'NR > 1 && $1 != w { print w \"\\t\" c; c = 0 } { w = $1; c += $2 }"
    ' END { if (NR) print w "\\t" c }\''
)
SLOW = "sleep 0.15; tr -s ' ' '\\n' | awk 'length { print $0 \"\\t1\" }'"
MINE = f"{sys.version_info[0]}.{sys.version_info[1]}."
OTHERS = [path for path in Path.home().glob(".pyenv/versions/3.[89].*/bin/python3") if MINE not in str(path)]
SERAI = [sys.executable, "-m", "serai"]


def finish(running: Running, within_s: float = 90.0) -> list[str]:
    assert running.wait(within_s), "it does not end"
    return running.files()


def pids(running: Running) -> dict[str, int]:
    return {name: known.ad["pid"] for name, known in running.desk.known.items()}


def happened(running: Running, what: str) -> list[dict[str, Any]]:
    return [event for event in list(running.record.events) if event["what"] == what]


def held(bench: Bench, first: int = 1) -> Commands:
    """Commands of which the first map, or none, ends by itself, and the others when there is a file ``go``."""
    go, begun = bench.tmp_path / "go", bench.tmp_path / "begun"
    if not first:
        begun.mkdir()
    wait = f"mkdir {begun} 2>/dev/null || until test -e {go}; do sleep 0.05; done; "
    return Commands(wait + SLOW.partition("; ")[2], REDUCE)


def test_commands_count_words(bench: Bench, left_of: Callable[[str], list[int]]) -> None:
    with bench.running(bench.session()) as running:
        files = finish(running)
        room = next(iter(happened(running, "host")))["facts"]["room"]
    assert [os.path.basename(file) for file in files] == ["part-00000", "part-00001", "part-00002"]
    bench.check()
    assert sorted(os.listdir(bench.tmp_path / "out")) == ["part-00000", "part-00001", "part-00002"]
    assert not os.path.exists(room)
    assert left_of(running.name) == []


def test_a_combiner_changes_nothing_but_the_work(bench: Bench) -> None:
    with bench.running(bench.session()) as running:
        finish(running)
    plain = bench.outputs()
    commands = bench.session().program
    assert isinstance(commands, Commands)
    combined = Commands(commands.mapper, commands.reducer, commands.reducer)
    with bench.running(bench.session(program=combined, output=str(bench.tmp_path / "out2"))) as running:
        finish(running)
    assert bench.outputs("out2") == plain


def test_a_worker_that_is_killed_changes_no_byte(bench: Bench, until: Callable[..., Any]) -> None:
    with bench.running(bench.session()) as running:
        finish(running)
    calm = bench.outputs()
    session = bench.session([("local:", 3)], program=held(bench), output=str(bench.tmp_path / "out2"))
    with bench.running(session) as running:
        victim = until(lambda: next((event["worker"] for event in happened(running, "done")), None))
        os.kill(pids(running)[victim], signal.SIGKILL)
        (bench.tmp_path / "go").touch()
        finish(running)
        assert [event["worker"] for event in happened(running, "lost")] == [victim]
        assert happened(running, "reopened"), "what it had made was lost with it"
        assert "SIGKILL ended it" in running.troubles[0]
    assert bench.outputs("out2") == calm
    bench.check("out2")


def test_a_worker_that_hangs_is_not_waited_for(
    bench: Bench, until: Callable[..., Any], left_of: Callable[[str], list[int]]
) -> None:
    """SIGSTOP during a map, before anything of it is silent long enough to be lost: others do it again."""
    rules = Rules(slow=2.0, slow_least_s=0.5)
    with bench.running(bench.session([("local:", 3)], program=held(bench)), rules=rules) as running:

        def in_a_map() -> str | None:
            """A worker that has begun one, which is held up, while another one has done the first."""
            done = {event["worker"] for event in happened(running, "done")}
            given = [event["worker"] for event in happened(running, "given")]
            return next((worker for worker in given if worker not in done), None) if done else None

        victim = until(in_a_map)
        os.kill(pids(running)[victim], signal.SIGSTOP)
        (bench.tmp_path / "go").touch()
        finish(running)
        counted = statistics_of(running, timeline_of(running.record.events))
    assert counted.doubled >= 1 or counted.lost >= 1
    bench.check()
    assert left_of(running.name) == []


def test_a_worker_that_joins_late_is_used(bench: Bench, until: Callable[..., Any]) -> None:
    hold, came = str(bench.tmp_path / "hold"), str(bench.tmp_path / "came")

    def mapper(line: str) -> Iterator[tuple[str, int]]:
        import os  # noqa: PLC0415 - it travels
        import time  # noqa: PLC0415 - it travels

        time.sleep(0.003)
        if os.environ.get("SERAI_WORKER") == "late":
            open(came, "w").close()
        while os.path.exists(hold) and not os.path.exists(came):  # so that something is left for it
            time.sleep(0.01)
        return ((word, 1) for word in line.split())

    import cloudpickle  # noqa: PLC0415 - for this test alone

    body = cloudpickle.dumps({"mapper": mapper})
    job = Job(Commands("", "sum"), functions=("mapper",), body=body)
    with bench.running(bench.session([("local:", 1)]), job) as running:
        until(lambda: happened(running, "done"))
        Path(hold).touch()
        token = bench.tmp_path / "token"
        token.touch(0o600)
        token.write_text(running.gateway.token)
        environment = {
            **os.environ,
            "SERAI_GATEWAY": running.gateway.address,
            "SERAI_GATEWAY_TOKEN_FILE": str(token),
            "SERAI_RUN": running.name,
            "SERAI_WORKER": "late",
        }
        command = [sys.executable, "-u", "-c", WORKER.program()]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment) as late:
            assert late.stdin is not None
            late.stdin.write(WORKER.packed())
            late.stdin.close()
            finish(running)
            assert [event for event in happened(running, "done") if event["worker"] == "late"]
            assert late.wait(60) == 0
    bench.check()


def test_a_command_that_fails_is_named(bench: Bench) -> None:
    commands = Commands("echo no such caravan >&2; exit 3", "cat", None)
    with bench.running(bench.session(program=commands)) as running, pytest.raises(TaskFailed) as caught:
        finish(running)
    assert "failed 4 times" in str(caught.value)
    assert "exit status 3" in str(caught.value)
    assert "no such caravan" in str(caught.value)
    assert bench.outputs() == []


@pytest.mark.parametrize("opened", [True, False])
def test_an_input_that_changes_during_the_run_ends_it(
    bench: Bench, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, *, opened: bool
) -> None:
    """Whether workers open it or are sent it: what they were told of it is not so any more."""
    held = Commands(f"until test -e {bench.tmp_path / 'go'}; do sleep 0.05; done; cat", REDUCE)
    with bench.running(bench.session([("local:", 1)], program=held)) as running:
        if not opened:
            monkeypatch.setattr(running.work.locality, "path", lambda _number, _place: None)  # as on other hosts
        until(lambda: happened(running, "given"))
        last = max(bench.corpus.directory.iterdir())
        os.utime(last, (1000, 1000))
        (bench.tmp_path / "go").touch()
        with pytest.raises(TaskFailed) as caught:
            finish(running)
    said = str(caught.value)
    assert str(last) in said
    assert "was changed after" in said


def test_adverts_that_cannot_be_read_are_noted_once(
    bench: Bench, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Commands(f"until test -e {bench.tmp_path / 'go'}; do sleep 0.05; done; cat", REDUCE)
    asked: list[str] = []
    with bench.running(bench.session([("local:", 1)], program=held)) as running:

        def fails(path: str, **_: object) -> None:
            asked.append(path)
            raise AccessError("nobody answers")

        until(lambda: happened(running, "given"))
        monkeypatch.setattr("serai.apps.mapreduce.run.LOOK_S", 0.0)
        monkeypatch.setattr(running._adverts, "list", fails)
        until(lambda: len(asked) > 3)
        assert [event["why"] for event in happened(running, "trouble")] == [
            "the adverts cannot be read: nobody answers"
        ]


def test_hosts_that_cannot_be_reached_are_said_and_the_run_goes_on(bench: Bench) -> None:
    with bench.running(bench.session([("local:", 2), ("ssh://127.0.0.1:1", 2)])) as running:
        finish(running)
        # None, if the run is over before ssh has given up; some, if it is tried again meanwhile.
        assert all("127.0.0.1 refuses connections on port 1" in trouble for trouble in running.troubles)
    bench.check()


def test_without_any_worker_the_reasons_are_said(bench: Bench) -> None:
    with bench.running(bench.session([("ssh://127.0.0.1:1", 2)])) as running, pytest.raises(NoNodeLeft) as caught:
        finish(running)
    assert "127.0.0.1" in str(caught.value)


def test_inputs_that_are_not_there_are_said_at_once(bench: Bench) -> None:
    with pytest.raises(UsageError, match="there is no input"):
        bench.running(bench.session(inputs=("/nonesuch/*.txt",)))


def test_all_that_is_not_there_is_said_and_nothing_is_left_of_the_run(bench: Bench, tmp_path: Path) -> None:
    images = tuple(BinaryImage(f"/nonesuch/{name}") for name in "ab")
    texts = tuple(f"/nonesuch/{number}.txt" for number in range(23))
    directory = tmp_path / "run"
    directory.mkdir()
    with pytest.raises(UsageError) as caught:
        Running(bench.session(program=Binaries(images), inputs=texts), directory)
    lines = caught.value.what.splitlines()
    assert lines[:2] == [f"the image /nonesuch/{name} is no file" for name in "ab"]
    assert lines[2] == "there is no input /nonesuch/0.txt"
    assert lines[21:] == ["there is no input /nonesuch/19.txt", "and 3 more"]
    assert not directory.exists()


def test_workers_are_found_in_the_adverts_and_the_token_is_nowhere(
    bench: Bench, until: Callable[..., Any], left_of: Callable[[str], list[int]]
) -> None:
    with bench.running(bench.session(program=held(bench, first=0))) as running:
        until(lambda: len(running.desk.known) == 2)
        with open_adverts(running.session.adverts) as adverts:
            found = {entry.path: entry for entry in adverts.list(f"/mapreduce/{running.name}", recursive=True)}
            assert sorted(found) == [f"/mapreduce/{running.name}/workers/w{number}" for number in (1, 2)]
            assert all(entry.expires is not None for entry in found.values())
            said = repr(found)
            for pid in left_of(running.name):
                for name in ("cmdline", "environ"):
                    with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
                        said += file.read().decode("utf-8", "replace")
            assert running.name in said
            assert running.gateway.token not in said
            (bench.tmp_path / "go").touch()
            finish(running)
            running.close()
            assert adverts.list("/mapreduce", recursive=True) == []
    assert running.gateway.token not in (bench.tmp_path / "state/mapreduce" / running.name / "events.jsonl").read_text()


# ---- from Python


def count(_key: str, values: Iterable[int]) -> int:
    return sum(values)


def test_functions_from_python(bench: Bench, tmp_path: Path) -> None:
    with serai.Pool("local:?slots=2") as pool:
        result = pool.mapreduce(lambda line: ((word, 1) for word in line.split()), count, bench.corpus.directory)
        assert len(result.files) == 2
        assert dict(result.items()) == bench.corpus.counts
        assert 1 <= result.statistics.workers <= 2  # the second may come when all is done
        assert result.statistics.records == len(bench.corpus.counts)
        result.timeline(tmp_path / "x.svg")
        counted = pool.mapreduce(str.split, "sum", [bench.corpus.directory], combiner="count", partitions=1)
        assert list(counted) == sorted(bench.corpus.counts.items())
    picture = ET.parse(tmp_path / "x.svg").getroot()  # noqa: S314 - we made it
    assert picture.tag.endswith("svg")
    assert "start" in result.table()
    kept = Path(result.files[0]).parent
    assert kept.exists()
    del result
    assert not kept.exists(), "results without a directory of the user's go with their object"


def test_streaming_commands_from_python_and_files_as_output(bench: Bench, tmp_path: Path) -> None:
    with serai.Pool("local:?slots=2") as pool:
        result = pool.mapreduce(SLOW, count_text, bench.corpus.directory, output=tmp_path / "streamed", partitions=2)
    assert [Path(file).parent for file in result.files] == [tmp_path / "streamed"] * 2
    assert Counter({key: int(value) for key, value in result.items()}) == bench.corpus.counts


def count_text(_key: bytes, values: Iterable[bytes]) -> int:
    return sum(map(int, values))


def test_an_exception_of_a_mapper_is_told_with_its_place(bench: Bench) -> None:
    def mapper(_line: str) -> list[tuple[str, int]]:
        raise LookupError("no such well")

    with serai.Pool("local:?slots=1") as pool, pytest.raises(TaskFailed) as caught:
        pool.mapreduce(mapper, "sum", bench.corpus.directory)
    assert "LookupError: no such well" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mapper": 7}, "the mapper is 7"),
        ({"records": "words"}, 'say records="lines"'),
        ({"partitions": 0}, "0 partitions"),
    ],
)
def test_what_is_wrong_is_said(bench: Bench, given: dict[str, Any], words: str) -> None:
    with serai.Pool("local:?slots=1") as pool, pytest.raises(UsageError) as caught:
        pool.mapreduce(**{"mapper": str.split, "reducer": "sum", "inputs": bench.corpus.directory, **given})
    assert words in str(caught.value)


def test_workers_run_on_hosts_only() -> None:
    with pytest.raises(UsageError, match="cannot be started at dask://head:8786"):
        run_mapreduce(Request(str.split, "sum", "/etc/hostname"), sites_from(["dask://head:8786"]), None)


@pytest.mark.skipif(not OTHERS, reason="there is no other Python here")
def test_a_worker_of_another_python_is_left_out_with_the_reason(bench: Bench) -> None:
    sites = sites_from([f"local:?slots=1&python={OTHERS[0]}", "local:?slots=1"])
    result = run_mapreduce(Request(str.split, "sum", bench.corpus.directory, combiner="count"), sites, bench.tmp_path)
    assert dict(result) == bench.corpus.counts
    assert result.statistics.workers == 1
    assert not result.troubles or "functions were pickled by" in result.troubles[0]
    with pytest.raises(NoNodeLeft, match="functions were pickled by"):
        run_mapreduce(Request(str.split, "sum", bench.corpus.directory), sites[:1], bench.tmp_path)


# ---- the command


def toml(bench: Bench, mapper: str = SLOW) -> Path:
    path = bench.tmp_path / "job.toml"
    script = bench.tmp_path / "reduce.sh"
    script.write_text(REDUCE)
    lines = [
        "[mapreduce]",
        f"mapper = {json.dumps(mapper)}",
        'reducer = "sh ./reduce.sh"',
        'inputs = ["texts"]',
        'output = "out"',
        "partitions = 3",
        "[[hosts]]",
        'url = "local:"',
        "workers = 2",
    ]
    path.write_text("\n".join(lines))
    return path


def test_the_command_prints_its_outputs(bench: Bench) -> None:
    """The reducer's script is named in the command, and travels by itself."""
    words = [*SERAI, "mapreduce", str(toml(bench)), "--timeline", str(bench.tmp_path / "x.svg")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    assert [os.path.basename(line) for line in done.stdout.split()] == [f"part-{number:05}" for number in range(3)]
    bench.check()
    assert "records in 3 files" in done.stderr
    assert "<svg" in (bench.tmp_path / "x.svg").read_text()


def test_the_command_in_json(bench: Bench) -> None:
    here = bench.tmp_path / "here"  # each worker's first map waits for the others, so that all have a part in it
    meet = f"mkdir -p {here}/$PPID; until test $(ls {here} | wc -l) -ge 3; do sleep 0.05; done; "
    job = toml(bench, meet + SLOW.partition("; ")[2])
    done = subprocess.run(
        [*SERAI, "mapreduce", str(job), "--json", "--workers", "3"], capture_output=True, text=True, check=False
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["what"] == "began"
    assert events[-1]["what"] == "summary"
    assert events[-1]["workers"] == 3
    assert len(events[-1]["files"]) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_front_end_that_goes_leaves_nothing(
    bench: Bench, until: Callable[..., Any], left_of: Callable[[str], list[int]], number: int, code: int
) -> None:
    job = toml(bench, "sleep 30; cat")
    with subprocess.Popen([*SERAI, "mapreduce", str(job)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as front:
        record = until(lambda: next((bench.tmp_path / "state/mapreduce").glob("*/events.jsonl"), None))
        run = record.parent.name
        until(lambda: len(left_of(run)) >= 4)  # two workers, and what each started
        front.send_signal(number)
        _, said = front.communicate(timeout=90)
        assert front.returncode == code
    until(lambda: not left_of(run))
    if number == signal.SIGINT:
        assert b"interrupted" in said
        assert not list((bench.tmp_path / "out").glob(".serai-*")), "no attempts are left beside the outputs"


def settled(bench: Bench) -> None:
    """What was changed just now may be changed again unseen: then nothing is taken from a former run."""
    for path in bench.corpus.directory.iterdir():
        os.utime(path, (1e9, 1e9))


def killed_while_reducing(bench: Bench, until: Callable[..., Any], left_of: Callable[[str], list[int]]) -> str:
    """The name of a run whose front end was killed when one output was whole; the others wait."""
    job = toml(bench)
    wait = f'test "$SERAI_TASK" = reduce-0 || until test -e {bench.tmp_path / "go"}; do sleep 0.05; done; {REDUCE}'
    (bench.tmp_path / "reduce.sh").write_text(wait)
    with subprocess.Popen([*SERAI, "mapreduce", str(job)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as front:
        record = until(lambda: next((bench.tmp_path / "state/mapreduce").glob("*/events.jsonl"), None))
        until(lambda: '"part":' in record.read_text())
        front.send_signal(signal.SIGKILL)
        front.communicate(timeout=90)
    run = str(record.parent.name)
    until(lambda: not left_of(run))
    (bench.tmp_path / "go").touch()
    return run


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SERAI, *words], capture_output=True, text=True, check=False)


def test_a_run_whose_front_end_was_killed_is_resumed(
    bench: Bench, until: Callable[..., Any], left_of: Callable[[str], list[int]]
) -> None:
    settled(bench)
    run = killed_while_reducing(bench, until, left_of)
    first = bench.tmp_path / "out/part-00000"
    former = first.stat()
    said = command("resume", run)
    assert said.returncode == 2
    assert f"with --resume {run}" in said.stderr
    done = command("mapreduce", str(bench.tmp_path / "job.toml"), "--resume", run, "--workers", "1", "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    reduces = [one["number"] for one in events if one["what"] == "given" and one["kind"] == "reduce"]
    assert sorted(reduces) == [1, 2], "what was whole is not made again"
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (former.st_ino, former.st_mtime_ns)
    assert len(events[-1]["files"]) == 3
    assert not list((bench.tmp_path / "out").glob(".serai-*")), "what the killed one left is gone, too"
    bench.check()
    made = bench.outputs()
    anew = command("mapreduce", str(bench.tmp_path / "job.toml"), "--output", str(bench.tmp_path / "calm"))
    assert anew.returncode == 0, anew.stderr
    assert made == bench.outputs("calm")
    again = command("mapreduce", str(bench.tmp_path / "job.toml"), "--resume", events[-1]["run"])
    assert again.returncode == 0, again.stderr
    assert len(again.stdout.splitlines()) == 3, "there is nothing left to do, and that is no mistake"


def test_a_run_that_goes_on_is_not_resumed_and_an_interrupted_one_says_how(
    bench: Bench, until: Callable[..., Any], left_of: Callable[[str], list[int]]
) -> None:
    settled(bench)
    job = toml(bench)
    wait = f'test "$SERAI_TASK" = reduce-0 || until test -e {bench.tmp_path / "go"}; do sleep 0.05; done; {REDUCE}'
    (bench.tmp_path / "reduce.sh").write_text(wait)
    with subprocess.Popen([*SERAI, "mapreduce", str(job)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as front:
        record = until(lambda: next((bench.tmp_path / "state/mapreduce").glob("*/events.jsonl"), None))
        run = record.parent.name
        until(lambda: '"part":' in record.read_text())
        said = command("mapreduce", str(job), "--resume", run)
        assert said.returncode == 2
        assert f"run {run} still goes on" in said.stderr
        front.send_signal(signal.SIGINT)
        _, words = front.communicate(timeout=90)
    assert front.returncode == 130
    assert f"outputs are whole; the same command with --resume {run} keeps them" in words.decode()
    until(lambda: not left_of(run))


def test_nothing_is_taken_from_a_run_that_did_something_else(
    bench: Bench, until: Callable[..., Any], left_of: Callable[[str], list[int]]
) -> None:
    settled(bench)
    run = killed_while_reducing(bench, until, left_of)
    job = bench.tmp_path / "job.toml"
    text, script, first = job.read_text(), bench.tmp_path / "reduce.sh", bench.tmp_path / "out/part-00000"
    wrong = "its inputs, program or outputs are not those of this one"
    job.write_text(text.replace("sleep 0.15", "sleep 0.16"))
    assert wrong in command("mapreduce", str(job), "--resume", run).stderr
    job.write_text(text)
    words = script.read_text()
    script.write_text(words + " ")
    assert wrong in command("mapreduce", str(job), "--resume", run).stderr, "a file that travels"
    script.write_text(words)
    one = min(bench.corpus.directory.iterdir())
    os.utime(one, (1e9 + 1, 1e9 + 1))
    assert wrong in command("mapreduce", str(job), "--resume", run).stderr
    os.utime(one, (1e9, 1e9))
    assert wrong in command("mapreduce", str(job), "--resume", run, "--partitions", "2").stderr
    assert "there is no run" in command("mapreduce", str(job), "--resume", "0101-000000-abcd").stderr
    assert "is no name" in command("mapreduce", str(job), "--resume", f"../mapreduce/{run}").stderr
    first.write_bytes(first.read_bytes().upper())
    done = command("mapreduce", str(job), "--resume", run)
    assert done.returncode == 0, done.stderr
    bench.check()


def test_a_run_that_no_worker_is_left_for_has_its_summary_and_picture(bench: Bench) -> None:
    job = toml(bench)
    job.write_text(job.read_text().replace('"local:"', '"local:?python=/nonesuch/python3"'))
    words = [*SERAI, "mapreduce", str(job), "--json", "--timeline", str(bench.tmp_path / "x.svg")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["what"], last["files"]) == ("summary", [])
    assert "/nonesuch/python3" in str(last["troubles"])
    assert "no worker could be started" in done.stderr
    assert (bench.tmp_path / "x.svg").exists()


def test_exit_codes(bench: Bench) -> None:
    for mapper, code, words in (("exit 3", 1, "exit status 3"), ("cat", 2, "unknown key")):
        job = toml(bench, mapper)
        if code == 2:
            job.write_text(job.read_text().replace("partitions", "partition"))
        done = subprocess.run([*SERAI, "mapreduce", str(job)], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert words in done.stderr
