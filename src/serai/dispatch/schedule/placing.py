"""The part of the schedule that chooses: which lane takes which tasks."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING

from serai.dispatch.schedule.bundles import bundle_size
from serai.dispatch.schedule.preferring import best_first, best_names, leader
from serai.dispatch.schedule.recalling import Recalling
from serai.dispatch.schedule.records import Where
from serai.match.movement import Policy

if TYPE_CHECKING:
    from serai.dispatch.schedule.machine import Schedule
    from serai.dispatch.schedule.records import Node, Site, Task, Work

LOOK = 64  # picky tasks looked at for one lane
LOOK_AGAIN_S = 0.1  # tasks that wait for who has their files are offered to more free lanes so often
DECLINES = 32  # nodes that would rather wait, and are asked then
PATIENCE = 8  # and in between, at the most: fewer when those that were asked before declined


class Placing:
    """Chooses for a schedule, and changes it only through `Schedule.open`."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._turn = 0
        self.look_at = float("inf")  # when every free lane is asked again, for tasks that wait for their files
        self._looked_at = float("-inf")
        # Sites, and nodes, that may have idle lanes, or lanes that run their last bundle; looked at when used.
        self._idle_sites: dict[str, Site] = {}
        self._thin_sites: dict[str, Site] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()
        self._thin: OrderedDict[str, None] = OrderedDict()
        self._freed: dict[str, None] = {}  # nodes whose lanes have changed since lanes were last given work
        self._minds_files = False
        self._patience = PATIENCE
        self.recalling = Recalling(schedule)

    def mind_files(self) -> None:
        """There are tasks that read files from now on."""
        if not self._minds_files:
            self._minds_files = True
            self._idle.update(dict.fromkeys(self._schedule.nodes))
            self._thin.update(dict.fromkeys(self._schedule.nodes))

    def has_idle(self, node: Node) -> None:
        """A lane of a node has nothing to do."""
        self._idle_sites[node.site.name] = node.site
        if self._minds_files:
            self._idle[node.name] = self._freed[node.name] = None

    def has_thin(self, node: Node) -> None:
        """A lane of a node runs its last bundle."""
        self._thin_sites[node.site.name] = node.site
        if self._minds_files:
            self._thin[node.name] = self._freed[node.name] = None

    def place(self, now: float) -> None:
        """Fill idle lanes first, then give each lane its next bundle, then see to lanes that are left with nothing."""
        works = self._waiting()
        self.look_at = float("inf")
        if works:
            self._turn += 1
            works = works[self._turn % len(works) :] + works[: self._turn % len(works)]
            # A wide work that gets its node lets go of others that were held for it, which then are free for the rest.
            holding = any(work.holds for work in works)
            thoroughly = now >= self._looked_at + LOOK_AGAIN_S
            near = self._look(works, now, thoroughly=thoroughly)
            for thin in (False, False, True) if holding else (False, True):
                if any(work.plain for work in works):
                    self._fill(works, now, thin=thin)
                elif near is not None:
                    self._fill_near(works, near, now, thin=thin, thoroughly=thoroughly)
        self._freed.clear()
        self.recalling.recall(self._idle_sites.values(), now)

    def replicate(self, now: float) -> None:
        """Double what waits for too long, where lanes are idle."""
        self.recalling.replicate(self._idle_sites.values(), now)

    def _waiting(self) -> list[Work]:
        """Works with tasks that wait; the others are looked at again when they have some."""
        busy = self._schedule.busy
        works = [work for work in busy.values() if work.waiting]
        if len(works) < len(busy):
            for work in [work for work in busy.values() if not work.waiting and not work.delayed]:
                del busy[work.id]
        return works

    def _fill(self, works: list[Work], now: float, *, thin: bool) -> None:
        if thin:
            sites = [site for site in self._thin_sites.values() if site.thin]
            self._thin_sites = {site.name: site for site in sites}
        else:
            sites = [site for site in self._idle_sites.values() if site.idle]
            self._idle_sites = {site.name: site for site in sites}
            sites = [site for site in sites if site.active < site.score.allowed()]
        if len(sites) > 1:
            sites.sort(key=lambda site: -site.score.value)
        lead = leader(works)
        if lead is not None:
            self._fill_ranked(lead, [site for site in sites if site.score.is_open(now)], works, now, thin=thin)
            return
        for site in sites:
            if site.score.is_open(now):
                self._fill_site(site, works, now, thin=thin)
                if not any(work.waiting for work in works):
                    return

    def _fill_site(self, site: Site, works: list[Work], now: float, *, thin: bool) -> None:
        lanes = site.thin if thin else site.idle
        for name, number in list(lanes):
            if (name, number) not in lanes:
                continue  # lent to a neighbour since
            if not thin and site.active >= site.score.allowed():
                return
            if self._ask(works, self._schedule.nodes[name], number, now, thin=thin) and not any(
                work.waiting for work in works
            ):
                return

    def _ask(self, works: list[Work], node: Node, lane: int, now: float, *, thin: bool) -> bool:
        """Offer a lane to works in turn; returns whether one of them took it."""
        return any(
            work.waiting and node.name in work.fit and self._offer(work, node, lane, now, thin=thin) for work in works
        )

    # ---- tasks that wait for who has their files

    def _look(self, works: list[Work], now: float, *, thoroughly: bool) -> list[str] | None:
        """Nodes to ask first about tasks that read files: there is news of their files, or of their lanes."""
        stirred: dict[str, None] = {}
        some = False
        for work in works:
            if work.files is not None and work.files.waiting:
                some = True
                self._schedule.nearness[work.id].refresh(now)
                stirred.update(work.files.stirred)
                work.files.stirred.clear()
        if not some:
            return None
        if thoroughly:
            self._looked_at = now
        self.look_at = self._looked_at + LOOK_AGAIN_S
        return [*stirred, *self._freed]

    def _fill_near(self, works: list[Work], names: list[str], now: float, *, thin: bool, thoroughly: bool) -> None:
        """Ask the nodes for which there may be something, then some others in turn, while they take what there is."""
        lead = leader(works)
        if lead is not None:
            self._fill_near_ranked(lead, works, names, now, thin=thin, thoroughly=thoroughly)
            return
        for name in names:
            self._ask_node(works, name, now, thin=thin)
        others = self._thin if thin else self._idle
        patience = DECLINES if thoroughly else 0 if thin else self._patience
        for _ in range(len(others)):
            if patience <= 0 or not any(work.waiting for work in works):
                break
            name = next(iter(others))
            others.move_to_end(name)
            if self._ask_node(works, name, now, thin=thin):
                self._patience = PATIENCE
            else:
                patience -= 1
        else:
            return
        if not thin and not patience:
            self._patience = max(1, self._patience // 2)

    def _fill_near_ranked(
        self, lead: Work, works: list[Work], names: list[str], now: float, *, thin: bool, thoroughly: bool
    ) -> None:
        """The same, the nodes first that a work wants most; what is near says only which task each is given.

        Now and then all are asked: those that are wanted most would decline every time, and come first every time.
        """
        others = self._thin if thin else self._idle
        patience = len(others) if thoroughly else 0 if thin else PATIENCE
        news = dict.fromkeys(names)
        for name in best_names(lead, news | others if patience else news):
            if not any(work.waiting for work in works):
                return
            if name in news:
                self._ask_node(works, name, now, thin=thin)
            elif patience > 0 and not self._ask_node(works, name, now, thin=thin):
                patience -= 1

    def _ask_node(self, works: list[Work], name: str, now: float, *, thin: bool) -> bool:
        """Offer every lane of a node that has room; returns whether one of them was taken."""
        node = self._schedule.nodes.get(name)
        lanes = () if node is None else node.site.thin if thin else node.site.idle
        taken = found = False
        if node is not None and node.site.score.is_open(now):
            site = node.site
            for lane in range(node.slots):
                if (name, lane) not in lanes:
                    continue
                found = True
                if not thin and site.active >= site.score.allowed():
                    break
                if not self._ask(works, node, lane, now, thin=thin):
                    break  # another lane of the same node would say the same
                taken = True
        elif node is not None:
            found = True
        if not found:
            (self._thin if thin else self._idle).pop(name, None)
        return taken

    def _fill_ranked(self, lead: Work, sites: list[Site], works: list[Work], now: float, *, thin: bool) -> None:
        """The same over all sites at once, the nodes first that a work wants most."""
        for site, name, number in best_first(lead, sites, thin=thin):
            if (name, number) not in (site.thin if thin else site.idle):
                continue  # lent to a neighbour since
            if not thin and site.active >= site.score.allowed():
                continue
            node = self._schedule.nodes[name]
            if not any(
                work.waiting and name in work.fit and self._offer(work, node, number, now, thin=thin) for work in works
            ) and not any(work.waiting for work in works):
                return

    def _offer(self, work: Work, node: Node, lane: int, now: float, *, thin: bool) -> bool:
        """Offer a lane to a work; returns whether it took it."""
        needs = work.needs
        if node.held_for not in {None, work} and self._kept_out(work, node):
            return False
        lanes = [lane]
        if needs.cores > 1 or needs.memory_bytes:
            free = [n for n, held in enumerate(node.lanes) if not held and n not in node.lent and n != lane]
            lanes += free[: needs.cores - 1]
            if thin or not _has_memory(node, work) or len(lanes) < needs.cores:
                # Small tasks would keep it from ever having room; but one task needs no more than one node.
                if node.held_for is None and len(work.holds) < work.waiting and self._wants(work, node):
                    node.held_for = work
                    work.holds.add(node.name)
                return False
            _let_go(node)
        size = self._size(work, node)
        tasks = self._take(work, node, size, thin=thin)
        if not tasks:
            return False
        self._schedule.lanes.open(work, node, lanes, tasks, now)
        return True

    def _wants(self, work: Work, node: Node) -> bool:
        """Whether a work has a task that would go to a node, had it room."""
        if work.queue or (work.files is not None and work.files.choose(node.name) is not None):
            return True
        known = self._schedule.tasks
        some = (known.get(ident) for ident in islice(work.picky, LOOK))
        return any(task is not None and self._may_run(task, node, thin=False) for task in some)

    def _kept_out(self, work: Work, node: Node) -> bool:
        """Whether a node is held for another work. While that waits for memory only, those that need none may go on."""
        holder = node.held_for
        if holder is None or not holder.waiting:
            _let_go(node)
            return False
        return bool(work.needs.memory_bytes) or _has_memory(node, holder)

    def _size(self, work: Work, node: Node) -> int:
        limits = self._schedule.limits
        lanes = len(work.fit) * len(node.lanes)  # as if all nodes were like this one: exact sums cost too much here
        target = max(limits.bundle_s, 2.0 * node.rtt_s)
        return bundle_size(work.estimate, work.waiting, lanes, target_s=target, most=limits.bundle_tasks)

    def _take(self, work: Work, node: Node, size: int, *, thin: bool) -> list[int]:
        """Take tasks off the queues that may run on a node."""
        known, queue = self._schedule.tasks, work.queue
        taken = self._take_picky(work, node, size, thin=thin) if work.picky else []
        if taken and known[taken[0]].losses:
            return taken
        while queue and len(taken) < size:
            ident = queue.popleft()
            task = known.get(ident)
            if task is not None and task.where == Where.QUEUE:
                work.forget(task)
                taken.append(ident)
        if work.files is not None and work.files.waiting and len(taken) < size:
            taken += self._take_files(work, node, size - len(taken), thin=thin)
        return taken

    def _take_files(self, work: Work, node: Node, size: int, *, thin: bool) -> list[int]:
        """Take tasks that read what a node has, or what it should fetch; several when that holds none of them up."""
        files, name = work.files, node.name
        group = None if files is None else files.choose(name, ahead=thin)
        if files is None or group is None:
            return []
        nearness, known = self._schedule.nearness[work.id], self._schedule.tasks
        fetch_s = nearness.fetch_s(name, group.files)
        if fetch_s == float("inf"):
            return []  # until a source serves fewer
        left_s = self._schedule.limits.bundle_s - fetch_s
        blind = self._schedule.limits.policy is Policy.FIRST_AVAILABLE  # tasks of one file would come together
        taken = files.pop(group, 1 if blind else size)
        while len(taken) < size and files.waiting:
            group = files.choose(name)
            if group is None:
                break
            left_s -= nearness.fetch_s(name, group.files)
            if left_s < 0:
                break
            taken += files.pop(group, 1 if blind else size - len(taken))
        for ident in taken:
            known[ident].where = Where.NONE
        work.waiting -= len(taken)
        return taken

    def _take_picky(self, work: Work, node: Node, size: int, *, thin: bool) -> list[int]:
        """Take picky tasks that may run on a node; one that has lost an executor travels alone."""
        known, picky = self._schedule.tasks, work.picky
        taken: list[int] = []
        for _ in range(min(len(picky), LOOK)):
            ident = picky.popleft()
            task = known.get(ident)
            if task is None or task.where != Where.PICKY:
                continue
            if (taken and task.losses) or not self._may_run(task, node, thin=thin):
                picky.append(ident)
                continue
            work.forget(task)
            taken.append(ident)
            if task.losses or len(taken) >= size:
                break
        return taken

    def _may_run(self, task: Task, node: Node, *, thin: bool) -> bool:
        """Whether a picky task may go to a lane: a suspect wants one for itself, and a node without another suspect."""
        if node.name in task.avoid or self._holds(task.bundles, node):
            return False
        if task.inputs and self._schedule.nearness[task.work.id].fetch_s(node.name, task.inputs) == float("inf"):
            return False  # until a source serves fewer
        return not self._schedule.lanes.is_suspect(task) or (not thin and node.suspect is None)

    def _holds(self, bundles: tuple[int, ...], node: Node) -> bool:
        return any(self._schedule.bundles[number].node is node for number in bundles)


def _has_memory(node: Node, work: Work) -> bool:
    """Whether a node has memory left for one more bundle of a work."""
    return not node.memory_bytes or node.memory_used + work.needs.memory_bytes <= node.memory_bytes


def _let_go(node: Node) -> None:
    """Hold a node no longer."""
    if node.held_for is not None:
        node.held_for.holds.discard(node.name)
        node.held_for = None
