"""RELIABILITY 4: the head is killed at every durable write, just before and just after it; everything holds at each point."""

import pytest

from tests.engine.world import World

QUIET_S = 20.0


def play(seed: int, crash_at: tuple[int, str] | None) -> World:
    world = World(seed, requests=10, wanted=(1, 2, 1), nodes=(4,), over_s=4.0)
    world.crash_at = crash_at
    world.play(QUIET_S)
    return world


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_the_head_dies_at_every_write(seed: int, when: str) -> None:
    undisturbed = play(seed, None)
    results = {row.id: (row.state, row.content) for row in undisturbed.store.rows.values()}
    assert undisturbed.store.writes == 20
    for point in range(1, undisturbed.store.writes + 1):
        world = play(seed, (point, when))
        assert world.store.incarnation == 2, f"never crashed at write {point}"
        assert {row.id: (row.state, row.content) for row in world.store.rows.values()} == results, (point, when)


@pytest.mark.parametrize("seed", [21, 22])
def test_the_head_dies_again_and_again(seed: int) -> None:
    world = World(seed, requests=12, nodes=(4,), over_s=4.0)
    for n in range(8):
        world.clockwork.at(2.0 + 3.7 * n, lambda: world.crash_head(0.8))
    world.play(40.0)
    assert world.store.incarnation == 9
