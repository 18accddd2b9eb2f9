"""What always holds of MapReduce's master between two events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serai.apps.mapreduce.events import MAP

if TYPE_CHECKING:
    from serai.apps.mapreduce.master import Master
    from serai.apps.mapreduce.tasks import Task, Worker


def sanity_check(master: Master) -> None:
    """Looks at every task and worker; slow, for tests.

    Raises:
        AssertionError: something does not hold.
    """
    for tasks, done in ((master.maps, master.maps_done), (master.reduces, master.reduces_done)):
        _hold(sum(task.done for task in tasks) == done, "the count of tasks that are done is right")
        for task in tasks:
            _check_task(master, task)
    for worker in master.workers.values():
        _check_worker(master, worker)
    if master.ended:
        return
    for task in master.maps:
        _hold(
            not task.done or task.skipped or master.workers[task.worker].alive,
            "a map's output is on a worker that lives",
        )
    _hold(master.phase == MAP or not len(master.queues[MAP]), "no map is queued when reduces may be given")
    for worker in master.workers.values():
        if worker.waits and worker.usable:
            takes = next(master.offered(worker), None)
            _hold(takes is None, f"{worker.name} waits only when there is nothing to do")


def _check_task(master: Master, task: Task) -> None:
    queued = task in master.queues[task.kind]
    running = task.number in master.running[task.kind]
    name = f"the {task.kind} {task.number}"
    _hold(master.ended or queued + running + task.done == 1, f"{name} is in one of: queued, running, done")
    _hold(master.ended or running == bool(task.running), f"{name} runs when it has attempts")
    _hold(len(task.running) <= 2, f"{name} has at most two attempts")
    for attempt in task.running.values():
        worker = master.workers[attempt.worker]
        _hold(worker.alive and worker.current is attempt, f"an attempt at {name} is what its worker has")
    _hold(len({one.worker for one in task.running.values()}) == len(task.running), f"{name} runs on different workers")


def _check_worker(master: Master, worker: Worker) -> None:
    name = worker.name
    _hold(not (worker.waits and worker.current), f"{name} waits or works")
    _hold(worker.alive or not (worker.waits or worker.current or worker.outputs), f"{name} is gone and has nothing")
    if worker.current is not None and not worker.cancelled and not master.ended:
        task = master.task(worker.current.order)
        _hold(
            task is not None and task.running.get(worker.current.order.attempt) is worker.current,
            f"what {name} has is an attempt",
        )
    for number in worker.outputs:
        _hold(master.maps[number].done and master.maps[number].worker == name, f"{name} holds what it is said to hold")


def _hold(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(f"it does not hold that {what}")
