"""The jobs port: commands on hosts, each of which goes on when the connection, the porter or the front end is gone.

::

    with JobService("ssh://lab1") as service:
        job = service.run_job(Description("make", ("-j4",), working_directory="src"))
        print(job.id)                       # [ssh://lab1]-[k3w0q9z1x7m2]: a later session's `get_job` takes it
        for line in job.stdout:
            ...
        assert job.wait(600).final

Every method that waits has an awaitable twin: ``await job.wait_async(600)``; ``async with`` opens a service.
After SAGA's job package (OGF GFD.90): job service, job, description, states.
"""

from __future__ import annotations

from serai.access.jobs.by_porter import local_jobs, ssh_jobs
from serai.access.jobs.job import Job
from serai.access.jobs.port import Mediator
from serai.access.jobs.service import JobService
from serai.describe.job import Description, State, Status

__all__ = ["Description", "Job", "JobService", "Mediator", "State", "Status", "local_jobs", "ssh_jobs"]
