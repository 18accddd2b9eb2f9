"""Small worlds, a little of everything: whatever happens, every promise is kept."""

from __future__ import annotations

import pytest

from serai.sim.__main__ import main
from serai.sim.checks import Broken
from serai.sim.draw import file_world, small_world


@pytest.mark.parametrize("seed", range(0, 240, 20))
def test_twenty_small_worlds(seed: int) -> None:
    for each in range(seed, seed + 20):
        small_world(each).run()


@pytest.mark.parametrize("seed", range(0, 200, 10))
def test_ten_small_worlds_with_files(seed: int) -> None:
    for each in range(seed, seed + 10):
        file_world(each).run()


# Worlds that once broke a promise.
@pytest.mark.parametrize("seed", [240, 282, 291, 298, 308])
def test_a_world_that_was_broken(seed: int) -> None:
    small_world(seed).run()


def test_a_seed_is_a_world() -> None:
    one, two = small_world(7).run(), small_world(7).run()
    assert (one.steps, one.now, one.ledger.final) == (two.steps, two.now, two.ledger.final)


def test_a_broken_promise_tells_its_seed_and_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    world = small_world(3)
    monkeypatch.setattr(world.schedule, "act", lambda _: None)  # a schedule whose actions are lost
    world._most_s = 100.0
    with pytest.raises(Broken) as caught:
        world.run()
    assert str(caught.value).startswith("seed 3, after ")
    assert 2 < len(str(caught.value).splitlines()) <= 51


def test_the_command_replays_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["17"]) == 0
    assert capsys.readouterr().out.startswith("seed 17: over at ")
    assert main(["17", "--many", "3"]) == 0
    assert capsys.readouterr().out == "3 of 3 worlds kept every promise\n"
