"""The porter travels: the standard library only, every Python from 3.8 on; and jobs run on each."""

from __future__ import annotations

import json
import subprocess

from serai.access import porter
from serai.access.jobs import Description, JobService, State
from serai.travel.boot import PORTER


def test_it_compiles(python: str) -> None:
    program = (
        "import sys, json\n"
        "for name, text in json.load(sys.stdin).items():\n"
        "    compile(text, name, 'exec', dont_inherit=True)\n"
    )
    words = [python, "-W", "error", "-c", program]
    subprocess.run(words, input=json.dumps(PORTER.sources()), text=True, timeout=60, check=True)


def test_jobs_run_on_it(python: str) -> None:
    service = JobService("local:", python=f"{python} -W error")
    jobs = service.run_jobs(["echo $SERAI_JOB; echo wrong >&2; exit 3", "sleep 1000"])
    assert jobs[0].stdout.read().decode().strip() == jobs[0].last_id
    assert jobs[0].stderr.read() == b"wrong\n"
    assert jobs[0].wait(60) is State.FAILED
    assert jobs[0].exit_code == 3
    jobs[1].suspend()
    assert jobs[1].state is State.SUSPENDED
    jobs[1].cancel()
    assert jobs[1].status().state is State.CANCELED
    spoken = service.run_job(Description("cat", interactive=True))
    spoken.stdin.write(b"abc")
    spoken.stdin.close()
    assert spoken.stdout.read() == b"abc"
    assert [job.last_id for job in service.list()] == [job.last_id for job in [*jobs, spoken]]
    porter.close_all()
