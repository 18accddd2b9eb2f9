"""The workers of a run as the front end knows them: starting, registered, silent, lost, and started again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serai.apps.mapreduce import events as ev
from serai.apps.workers.revival import Again, Home, What
from serai.pool.members import Member

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from serai.apps.mapreduce.desk import Desk
    from serai.apps.mapreduce.record import Record
    from serai.apps.workers.launch import Launch
    from serai.apps.workers.stewards import Place
    from serai.clock import Clock

LATE_S = 1.0  # between two ticks: then this process was held up itself


@dataclass(frozen=True, slots=True)
class Patiences:
    """How long workers are waited for.

    Attributes:
        join_s: for a worker that was started to register.
        silent_s: for one that gave no sign of life to do so; then it is ended, and another takes its place.
        again: how far lost workers are started again.
    """

    join_s: float = 60.0
    silent_s: float = 15.0
    again: Again = field(default_factory=Again)


class Crew:
    """Keeps account of workers and has lost ones started again. Any thread; the desk's lock is its own too.

    Args:
        name: the run's.
        desk: is told of workers that are gone.
        record: what happened.
        clock: tells the time.
        patiences: see there.

    Attributes:
        troubles: what did not work, in sentences.
        skipped: splits that are left out, and why.
        again: workers that were started beyond the first ones.
    """

    def __init__(self, name: str, desk: Desk, record: Record, clock: Clock, patiences: Patiences) -> None:
        self.name = name
        self.troubles: list[str] = []
        self.skipped: list[str] = []
        self.again = 0
        self._desk = desk
        self._record = record
        self._clock = clock
        self._patiences = patiences
        self._launch: Launch | None = None
        self._homes: dict[Place, Home] = {}
        self._places: dict[str, Place] = {}  # of workers that were started
        self._began: dict[str, float] = {}  # when they were
        self._starting: dict[str, float] = {}  # workers that have not registered, and until when they may
        self._silent: dict[str, float] = {}  # workers that give no sign of life, and since when
        self._mute: frozenset[Place] = frozenset()  # hosts of which nothing is heard, whatever workers there say
        self._ticked = clock.now()
        self._forgiven = 0  # splits that were left out
        self._reasons: dict[str, str] = {}  # why nothing more comes of a host or worker, by its name

    def begin(self, launch: Launch) -> None:
        """Have workers started everywhere."""
        with self._desk.changed:
            self._launch = launch
            self._homes = {place: Home(Member(place.name), self._patiences.again) for place in launch.places}
            self._tell_expecting()
        launch.start()

    def place_of(self, worker: str) -> Place | None:
        """Where a worker was started; None when somebody else started it."""
        return self._places.get(worker)

    def label(self, worker: str) -> str:
        """A worker's name for people."""
        place = self._places.get(worker)
        return f"{place.name}/{worker}" if place is not None else worker

    def heed(self, action: ev.Bar | ev.Skip) -> None:
        """What the master decided; it knows, and is not told again."""
        if isinstance(action, ev.Bar):
            self.troubles.append(f"{self.label(action.worker)} gets nothing more: {action.why}")
        else:
            self.skipped.append(action.why)
            self.troubles.append(f"left out: {action.why}")

    def refuse(self, worker: str, why: str) -> None:
        """A worker that registered cannot be used."""
        self._starting.pop(worker, None)
        self._desk.banished.add(worker)
        self._trouble(f"{self.label(worker)}: {why}", self.label(worker))

    def registered(self, worker: str, ad: Mapping[str, object]) -> None:
        """A worker registered, perhaps once more, and is used from now on."""
        self._starting.pop(worker, None)
        self._silent.pop(worker, None)
        self._desk.join(worker, dict(ad), self.place_of(worker))
        self._tell_expecting()

    # ---- what the launch says (`stewards.Crew`)

    def host_up(self, host: Place, workers: Sequence[str], *, anew: bool) -> None:
        """See `stewards.Crew.host_up`."""
        with self._desk.changed:
            home = self._homes[host]
            if anew:
                home.up(len(workers))
                self._desk.work.locality.forget(host)
            else:
                home.started()
            for worker in workers:
                self._places[worker] = host
                self._began[worker] = self._clock.now()
                self._starting[worker] = self._began[worker] + self._patiences.join_s
            self._record.note("host", host=host.name, workers=list(workers), facts=host.facts)
            self._tell_expecting()

    def host_lost(self, host: Place, why: str, *, transient: bool) -> None:
        """See `stewards.Crew.host_lost`."""
        with self._desk.changed:
            if self._desk.over:
                return
            home, now = self._homes[host], self._clock.now()
            if home.left_out or (home.down and home.member.due(float("inf"))):
                return  # it is known
            its_own = [worker for worker in self._places if self._places[worker] is host]
            if self._did_well(its_own):
                home.did_well(now)
            home.lost(why, now, transient=transient)
            self._limit(home)
            self._trouble(f"{why}; {home.outlook(now)}", host.name if home.left_out else None)
            self._tell_expecting()  # first: the master may be told that no worker is left
            for worker in its_own:
                self._ended(worker, f"the way to {host.name} was lost", by_itself=False)

    def worker_ended(self, worker: str, why: str, *, by_itself: bool) -> None:
        """See `stewards.Crew.worker_ended`."""
        with self._desk.changed:
            if self._desk.over:
                return
            home, now = self._homes[self._places[worker]], self._clock.now()
            wanted = worker not in self._desk.banished
            if self._did_well([worker]):
                home.did_well(now)
            known = self._desk.master.workers.get(worker)
            if wanted and not (known is not None and known.barred):
                task = self._desk.master.had(worker) if by_itself else None
                home.worker_lost(why, self._began[worker], now, excused=task is not None and bool(task.deaths))
                self._limit(home)
                during = f" during {task}" if task is not None else ""
                name = home.member.name if home.left_out else None
                self._trouble(f"{self.label(worker)}: {why}{during}; {home.outlook(now)}", name)
            self._tell_expecting()  # first, as above
            self._ended(worker, why, by_itself=by_itself)

    def _ended(self, worker: str, why: str, *, by_itself: bool) -> None:
        self._starting.pop(worker, None)
        self._silent.pop(worker, None)
        if worker not in self._desk.banished:
            self._desk.banished.add(worker)
            self._desk.tell(ev.Gone(worker, why, final=True, by_itself=by_itself))

    def _did_well(self, workers: Iterable[str]) -> bool:
        """Whether one of these did some work since it was started; what it did then counts no more."""
        master = self._desk.master
        return any(
            worker not in self._desk.banished and worker in master.workers and master.workers[worker].done
            for worker in workers
        )

    def _limit(self, home: Home) -> None:
        if self.again >= self._patiences.again.in_all and not home.left_out:
            home.give_up(f"{home.member.why}; {self.again} workers were started again in this run")

    def _trouble(self, words: str, for_good: str | None = None) -> None:
        self.troubles.append(words)
        self._record.note("trouble", why=words)
        if for_good is not None:
            self._reasons[for_good] = words

    def _tell_expecting(self) -> None:
        count = len(self._starting) + sum(home.expecting for home in self._homes.values())
        starting = {self._places[worker].key for worker in self._starting}
        starting |= {place.key for place, home in self._homes.items() if home.expecting}
        self._desk.tell(ev.Expecting(count, tuple(self._reasons.values()), frozenset(starting)))

    # ---- time, and signs of life

    def tick(self) -> None:
        """Look who did not come in time, and start again what is due."""
        with self._desk.changed:
            if self._desk.over:
                return
            now = self._clock.now()
            on_time, self._ticked = now - self._ticked < LATE_S, now
            if on_time and self._launch is not None:  # else signs of life may not have been heard yet, but here
                self._mute = frozenset(self._launch.silent())
                for place in self._mute:
                    self._fell_silent(place, now)
            for worker in [one for one, until in self._starting.items() if now > until]:
                self._end(worker, f"it did not register within {self._patiences.join_s:g} s")
            patience_s = self._patiences.silent_s
            for worker in [one for one, since in self._silent.items() if now - since > patience_s]:
                if worker in self._silent:  # its host may have been given up with the one before
                    self._end(worker, f"it gave no sign of life for {now - self._silent[worker]:.0f} s more")
            if len(self._desk.master.skipped) > self._forgiven:  # whoever died of these is not to blame
                self._forgiven = len(self._desk.master.skipped)
                for home in self._homes.values():
                    home.did_well(now)
            for place, home in self._homes.items():
                self._start_again(place, home, now)
            self._tell_expecting()
            self._desk.tell(ev.Tick())

    def _fell_silent(self, place: Place, now: float) -> None:
        """Nothing is heard of a host: what its workers had is done elsewhere, whether they come back or not.

        Only once of each: were what a worker does be taken from it as often as it calls, a host whose steward alone
        hangs would work for ever, and nothing would come of it.
        """
        known = self._desk.master.workers
        fell = [
            worker
            for worker, where in self._places.items()
            if where is place and worker not in self._silent and worker in known and known[worker].alive
        ]
        if fell:
            self._trouble(f"{place.name}: nothing is heard of it; what {', '.join(fell)} had is made again")
            for worker in fell:
                self._silent[worker] = now
                self._desk.tell(ev.Gone(worker, "its host gave no sign of life"))

    def _start_again(self, place: Place, home: Home, now: float) -> None:
        if home.expecting and home.member.tries:
            since = home.member.since
            if self._did_well(
                one for one, where in self._places.items() if where is place and self._began[one] > since
            ):
                home.did_well(now)
        what = home.take(now)
        if what is None or self._launch is None:
            return
        self.again += home.wanted if what is What.HOST else 1
        self._record.note("again", host=place.name, start=what.value)
        if what is What.HOST:
            self._launch.bring_up(place)
        else:
            self._launch.start_worker(place)

    def _end(self, worker: str, why: str) -> None:
        """Have a worker ended of which nothing is heard; if nothing is heard of its host, that is given up."""
        place = self._places.get(worker)
        if place is None or self._launch is None:
            self._ended(worker, why, by_itself=False)
            return
        used = self._desk.known
        others = [
            one
            for one, home in self._places.items()
            if home is place and one in used and one not in self._desk.banished and one not in self._silent
        ]
        if others:
            self._launch.drop(place, worker)
            self.worker_ended(worker, why, by_itself=False)
        else:
            self._launch.abandon(place)
            self.host_lost(place, f"{place.name}: {worker}: {why}", transient=True)

    def look(self, living: set[str]) -> None:
        """See whose ads have expired.

        Args:
            living: workers whose ads have not.
        """
        with self._desk.changed:
            for worker in sorted(set(self._desk.known) - self._desk.banished):
                if worker in living and self._places.get(worker) in self._mute:
                    continue  # its host is given up when that lasts: nobody could end or start workers there
                if worker in living:
                    self._silent.pop(worker, None)
                elif worker not in self._silent:
                    self._silent[worker] = self._clock.now()
                    self._desk.tell(ev.Gone(worker, "it gave no sign of life"))
