"""When a node is tried again."""

from __future__ import annotations

import pytest

from serai.pool.members import Member, Patience, Standing

PATIENCE = Patience(first_s=1.0, most_s=8.0, tries=5)


def test_waits_double_up_to_the_longest_and_then_it_is_given_up() -> None:
    member, now, waits = Member("a"), 100.0, []
    while True:
        member.lost("no route", now, transient=True, patience=PATIENCE)
        if member.hopeless:
            break
        waits.append(member.retry_at - now)
        assert not member.due(member.retry_at - 0.01)
        assert member.due(member.retry_at)
        now = member.retry_at
        member.connecting(now)
    assert waits == [1, 2, 4, 8, 8]
    assert member.standing is Standing.GIVEN_UP


def test_what_waiting_cannot_mend_is_given_up_at_once() -> None:
    member = Member("a")
    member.lost("login refused", 0.0, transient=False, patience=PATIENCE)
    assert member.hopeless
    assert member.why == "login refused"


@pytest.mark.parametrize("losses", [1, 4])
def test_a_check_in_forgives(losses: int) -> None:
    member = Member("a")
    for _ in range(losses):
        member.lost("silent", 0.0, transient=True, patience=PATIENCE)
    member.came(5.0)
    assert (member.standing, member.tries, member.why) == (Standing.UP, 0, "")
    assert not member.due(1e9)


@pytest.mark.parametrize("why", ["lab2: no route", "no route"])
def test_what_is_wrong_with_a_node_does_not_begin_with_its_name(why: str) -> None:
    member = Member("lab2")
    member.lost(why, 0.0, transient=False, patience=PATIENCE)
    assert member.why == "no route"
    member.released(1.0)
    assert member.why == "its user let go of it"
