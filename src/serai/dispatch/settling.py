"""What becomes of reports: outputs are accepted, the journal is written, then owners are told; in this order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serai.describe.task import Cause, State
from serai.dispatch.journal import Batch
from serai.dispatch.ports import Ended
from serai.dispatch.schedule.events import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serai.clock import Clock
    from serai.data.landing import Landing
    from serai.dispatch.journal import Journal
    from serai.dispatch.ports import Owner
    from serai.dispatch.schedule import events as ev

NO_SIZES = (0, 0, 0)


class Settling:
    """Settles reports; on the dispatcher's thread only.

    Args:
        journal: where it is written.
        landing: where outputs have arrived.
        owners: of works, by number; who is told.
        clock: tells the time.
    """

    def __init__(self, journal: Journal, landing: Landing, owners: Mapping[int, Owner], clock: Clock) -> None:
        self.batch = Batch()
        self.unmet: dict[int, str] = {}  # tasks that are ended because no node can ever run them: why
        self._journal = journal
        self._landing = landing
        self._owners = owners
        self._clock = clock
        self._ended: dict[int, list[Ended]] = {}

    def check(self, report: ev.Report) -> None:
        """Before a report is judged: a task whose outputs did not come whole has not ended well."""
        head = report.facts[0]
        files = head.get("files")
        if not files:
            return
        causes = list(report.causes) if report.causes is not None else [int(Cause.OK)] * len(report.tasks)
        for index, sizes in files.items():
            position = int(index)
            why = self._landing.check(report.bundle, report.tasks[position], sizes)
            if why and causes[position] == Cause.OK:
                causes[position] = int(Cause.OUTPUT)
                head.setdefault("detail", {})[index] = why
                report.causes = causes

    def settle(self, action: ev.Settle) -> None:
        """Take in a judged report."""
        report, verdicts = action.report, action.verdicts
        head, body = report.facts
        count = len(report.tasks)
        at = head.get("at") or [int(self._clock.wall() * 1e6)] * count
        exits = head.get("exit")
        rss = head.get("rss")
        sizes = head.get("sizes")
        details = head.get("detail") or {}
        causes = report.causes
        rows: list[tuple[Any, ...]] = []
        offset = 0
        told = self._ended.setdefault(action.work, []) if action.work else []
        for n, task in enumerate(report.tasks):
            out, err, result = sizes[n] if sizes else NO_SIZES
            start, offset = offset, offset + out + err + result
            cause = causes[n] if causes else 0
            verdict = verdicts[n] if verdicts else Verdict.DONE
            if verdict == Verdict.LATE:
                self._landing.discard(report.bundle, task)
                continue
            detail = details.get(str(n), "")
            if verdict == Verdict.AGAIN:
                self._landing.discard(report.bundle, task)
                words = detail or _last_words(exits[n] if exits else 0, body[start + out : start + out + err])
                self.batch.attempts.append((task, self._clock.wall(), report.node, cause, words))
                continue
            ended = Ended(task, State.DONE if verdict == Verdict.DONE else State.FAILED, cause, report.node, detail)
            self._land(ended, report.bundle)
            ended.lane = report.lane
            ended.exit_code = exits[n] if exits else 0
            ended.started_us = at[n]
            ended.took_us = report.took_us[n]
            ended.rss_kb = rss[n] if rss else 0
            if offset > start:
                ended.stdout = body[start : start + out]
                ended.stderr = body[start + out : start + out + err]
                ended.result = body[offset - result : offset]
            self._streams(ended)
            rows.append(
                (
                    task,
                    ended.state.value,
                    int(ended.cause),
                    ended.exit_code,
                    ended.started_us,
                    ended.took_us,
                    ended.rss_kb,
                )
            )
            told.append(ended)
        if rows:
            self.batch.results.append((rows, report.node, report.lane))

    def _land(self, ended: Ended, bundle: int) -> None:
        """Make the outputs of an accepted attempt visible."""
        trouble = self._landing.stream_trouble(bundle, ended.task)
        if trouble:
            self.note(f"what it printed was not kept: {trouble}", ended.node, ended.task)
        if ended.state is State.DONE:
            try:
                ended.stream_paths = self._landing.accept(bundle, ended.task)
            except OSError as error:
                ended.state, ended.cause = State.FAILED, Cause.OUTPUT
                ended.detail = f"its output cannot be put in its place: {error}"
        else:
            ended.stream_paths = self._landing.discard(bundle, ended.task, keep_streams=True)
        if ended.detail:
            self.batch.details.append((ended.task, ended.detail))

    def _streams(self, ended: Ended) -> None:
        for which, data in enumerate((ended.stdout, ended.stderr)):
            path = ended.stream_paths.get(which)
            if data or path:
                self.batch.streams.append((ended.task, which, data or None, path))

    def gave_up(self, action: ev.GiveUp) -> None:
        """A task has failed without a report."""
        self._end(action.work, Ended(action.task, State.FAILED, action.cause, action.node, action.why))

    def stopped(self, action: ev.Stopped) -> None:
        """Tasks were cancelled."""
        for task in action.tasks:
            why = self.unmet.pop(task, None)
            if why is None:
                ended = Ended(task, State.CANCELLED, Cause.CANCELLED, "", "cancelled by its user")
            else:
                ended = Ended(task, State.FAILED, Cause.NEEDS, "", why)
            self._end(action.work, ended)

    def _end(self, work: int, ended: Ended) -> None:
        self._ended.setdefault(work, []).append(ended)
        now_us = int(self._clock.wall() * 1e6)
        row = (ended.task, ended.state.value, int(ended.cause), None, now_us, 0, 0)
        self.batch.results.append(((row,), ended.node, -1))
        self.batch.details.append((ended.task, ended.detail))

    def note(self, text: str, node: str, task: int) -> None:
        """A line for the journal."""
        self.batch.notes.append((self._clock.wall(), node, task, text))

    def flush(self) -> None:
        """Write what has gathered, then tell the owners."""
        if not self.batch:
            return
        self._journal.write(self.batch)
        self.batch = Batch()
        ended, self._ended = self._ended, {}
        for work, batch in ended.items():
            if batch:
                self._owners[work].ended(batch)

    def finish(self) -> None:
        """The dispatcher ends: write what is left, and drop attempts that were not accepted."""
        self.flush()
        self._landing.discard_all()

    def abandon(self, error: BaseException) -> None:
        """The dispatcher failed: nobody is told of what could not be written, and all are told why."""
        self.batch = Batch()
        self._ended.clear()
        self._landing.discard_all()
        for owner in list(self._owners.values()):
            owner.broken(error)


def _last_words(code: int | None, stderr: bytes) -> str:
    """What there is to say of an attempt that ended badly and is made again."""
    ended = "ended" if code is None else f"exit code {code}" if code >= 0 else f"ended by signal {-code}"
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return f"{ended}: {lines[-1][:200]}" if lines else ended
