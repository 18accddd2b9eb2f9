"""Which peers take part in which study, with how many tasks, and what is to be known about each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """One peer's part in a study.

    Attributes:
        peer: its name in tables and for `--only` (the part before a comma is enough there).
        kind: `serai`; `peer`, an engine; or `limit`, a bare loop with no promises.
        script: in peers/.
        full: tasks in a full run.
        quick: tasks in a quick run.
        env: the environment in .envs/; empty for the one that runs this.
        variant: handed to the script.
        alone: whether it runs in a network of its own that has only loopback.
        note: what a reader of the table must know.
    """

    peer: str
    kind: str
    script: str
    full: int
    quick: int
    env: str = ""
    variant: str = ""
    alone: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class Study:
    """A study whose figures are rates: all its runs do the same work with two workers."""

    name: str
    work: str
    title: str
    target: int
    runs: tuple[Run, ...]


SUBPROCESS = "subprocess.run in a task"

FUNCTIONS = Study(
    "functions",
    "functions",
    "No-op functions, each submitted by itself, all results collected",
    50_000,
    (
        Run("serai", "serai", "serai_peer.py", 50_000, 5_000, variant="local"),
        Run(
            "dask, tuned",
            "peer",
            "dask_peer.py",
            10_000,
            1_000,
            "dask",
            "tuned",
            note="no stealing, no profiler, saturation inf, pure=False",
        ),
        Run("dask, default", "peer", "dask_peer.py", 10_000, 1_000, "dask", "default"),
        Run("ray", "peer", "ray_peer.py", 15_000, 1_000, "ray"),
        Run("parsl HTEX", "peer", "parsl_peer.py", 20_000, 2_000, "parsl", note="prefetch 100, unencrypted loopback"),
        Run("ProcessPoolExecutor", "peer", "pool_peer.py", 50_000, 5_000, note="one machine only; chunks of one"),
        Run(
            "execnet, single",
            "limit",
            "execnet_peer.py",
            50_000,
            5_000,
            "execnet",
            "single",
            note="bare loop: no pickling, no retries, no journal",
        ),
        Run(
            "execnet, bundles",
            "limit",
            "execnet_peer.py",
            50_000,
            50_000,
            "execnet",
            "bundles",
            note="the same in bundles of 100",
        ),
    ),
)

COMMANDS = Study(
    "commands",
    "commands",
    "/bin/true, exit code, stdout and stderr kept of each",
    10_000,
    (
        Run("serai", "serai", "serai_peer.py", 10_000, 1_000, variant="local"),
        Run("dask, tuned", "peer", "dask_peer.py", 10_000, 1_000, "dask", "tuned", note=SUBPROCESS),
        Run("dask, default", "peer", "dask_peer.py", 10_000, 1_000, "dask", "default", note=SUBPROCESS),
        Run("ray", "peer", "ray_peer.py", 10_000, 1_000, "ray", note=SUBPROCESS),
        Run("parsl HTEX", "peer", "parsl_peer.py", 10_000, 1_000, "parsl", note=f"{SUBPROCESS}; its bash_app polls"),
        Run("hyperqueue", "peer", "hyperqueue_peer.py", 5_000, 1_000, "hyperqueue", note="native; kept in files"),
        Run("ProcessPoolExecutor", "peer", "pool_peer.py", 10_000, 1_000, note=f"one machine only; {SUBPROCESS}"),
        Run("execnet, single", "limit", "execnet_peer.py", 10_000, 1_000, "execnet", "single", note="bare loop"),
        Run("xargs -P2", "limit", "xargs_peer.py", 10_000, 1_000, note="keeps only whether all ended well"),
        Run("posix_spawn x2", "limit", "spawn_peer.py", 10_000, 1_000, note="keeps exit codes only: the limit"),
    ),
)


def _over_ssh(work: str, title: str, full: int, quick: int) -> Study:
    return Study(
        f"ssh-{work}",
        work,
        title,
        full,
        (
            Run("serai, local", "peer", "serai_peer.py", full, quick, variant="local", alone=False),
            Run("serai, ssh", "serai", "serai_peer.py", full, quick, variant="ssh", alone=False),
        ),
    )


SSH_FUNCTIONS = _over_ssh("functions", "Functions through one ssh host of the laboratory, against local", 50_000, 5_000)
SSH_COMMANDS = _over_ssh("commands", "Commands through one ssh host of the laboratory, against local", 10_000, 1_000)

DASK_ENGINE = Study(
    "dask-engine",
    "functions",
    "Functions through Serai over a Dask cluster, against plain Dask on the same cluster",
    10_000,
    (Run("serai over dask", "serai", "serai_dask.py", 10_000, 1_000),),  # its script measures both
)

RATES = {study.name: study for study in (FUNCTIONS, COMMANDS, SSH_FUNCTIONS, SSH_COMMANDS, DASK_ENGINE)}


@dataclass(frozen=True, slots=True)
class Count:
    """One peer's part in the study of word counts, as a whole process.

    Attributes:
        peer: as for `Run`, and so are kind, env, alone and note.
        words: the arguments of the environment's Python, or of the program; {peers}, {out} and {scratch} are filled in,
            and the files follow.
        program: compiled from peers/<program>.c; empty for Python.
        most_mb: larger texts are not given to it.
        once: whether it takes part in the first round only.
    """

    peer: str
    kind: str
    words: tuple[str, ...]
    env: str = ""
    program: str = ""
    alone: bool = True
    most_mb: int = 1_000_000
    once: bool = False
    note: str = ""


def _script(name: str, variant: str) -> tuple[str, ...]:
    return (f"{{peers}}/{name}", variant, "{out}", "{scratch}")


STREAMING = ("-r", "local", "--num-cores", "2", "--no-cat-output", "--output-dir", "{out}/counts")
BY_WORD = "mapper emits each word; combiner"
COUNTS = (
    Count("C, 1 thread", "limit", ("1", "{out}/counts"), program="wordcount", note="one pass, one hash table, qsort"),
    Count("C, 2 threads", "limit", ("2", "{out}/counts"), program="wordcount", note="the same, tables merged"),
    Count("serai, str.split", "serai", _script("serai_mapreduce.py", "split"), note="the fast form"),
    Count("serai, mapper and sum", "serai", _script("serai_mapreduce.py", "sum"), note="mapper emits each word; sum"),
    Count("serai, functions", "serai", _script("serai_mapreduce.py", "functions"), note=BY_WORD),
    Count("dask bag", "peer", _script("words_dask.py", "processes"), "dask", note="its own default, two processes"),
    Count(
        "dask bag, distributed",
        "peer",
        _script("words_dask.py", "distributed"),
        "dask",
        most_mb=200,
        once=True,
        note="LocalCluster of two workers",
    ),
    Count("ray data, arrow", "peer", _script("words_ray.py", "arrow"), "ray-data", note="map_batches by pyarrow"),
    Count("ray data, Counter", "peer", _script("words_ray.py", "counter"), "ray-data", note="map_batches in Python"),
    Count("pyspark, DataFrame", "peer", _script("words_spark.py", "dataframe"), "pyspark", note="no Python in it"),
    Count("pyspark, RDD", "peer", _script("words_spark.py", "rdd"), "pyspark", note="flatMap, reduceByKey in Python"),
    Count(
        "mrjob, counted within",
        "peer",
        ("{peers}/words_mrjob.py", "--within", *STREAMING),
        "mrjob",
        note="as Hadoop streaming; each mapper counts within itself",
    ),
    Count(
        "mrjob",
        "peer",
        ("{peers}/words_mrjob.py", *STREAMING),
        "mrjob",
        most_mb=200,
        once=True,
        note=f"as Hadoop streaming; {BY_WORD}",
    ),
)

LEFT_OUT = {
    "TaskVine": "on neither PyPI nor in Debian 12, whose coop-computing-tools has Work Queue only, and no Python part",
    "hyperqueue, functions": "it starts a Python interpreter for each function: about six a second",
}
