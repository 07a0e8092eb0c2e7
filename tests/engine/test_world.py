"""Whole services on virtual time, with faults drawn from a seed; a failure names it. ``DISAGCTL_SEEDS=5000`` tries more."""

import os
from functools import partial

import pytest

from stages import core
from tests.engine import faults
from tests.engine.soak import make
from tests.engine.world import World

SEEDS = int(os.environ.get("DISAGCTL_SEEDS", "320"))
CHUNKS = 16


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.timeout(120 + SEEDS)
def test_every_promise_holds_whatever_the_seed(chunk: int) -> None:
    for seed in range(chunk, SEEDS, CHUNKS):
        make(seed, most=4 + seed % 9).play(faults.END_S)


@pytest.mark.parametrize("chunk", range(4))
def test_every_promise_holds_when_what_is_held_fits_no_single_message(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "HELLO_BYTES", 1)
    for seed in range(chunk, 80, 4):
        make(seed, most=9).play(faults.END_S)


@pytest.mark.parametrize("chunk", range(4))
def test_every_promise_holds_while_workers_get_several_gpus_and_lose_them_again(chunk: int) -> None:
    for seed in range(chunk, SEEDS // 2, 4):
        world = World(
            seed, wanted=((1, 2, 1), (2, 1, 2))[seed % 2], nodes=((8, 8), (12,))[seed % 2], width=1 + seed % 3
        )
        faults.draw(world, most=9)
        for at_s in (8.0, 20.0):
            world.clockwork.at(at_s, partial(faults.crash_head, world))
        world.play(faults.END_S)


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = make(7), make(7)
    first.play(faults.END_S)
    second.play(faults.END_S)
    assert first.history == second.history
    assert len(first.history) > 10


def test_without_faults_every_good_request_succeeds_at_the_first_try() -> None:
    world = World(1)
    world.play(30.0)
    good = [row for row in world.store.rows.values() if world.nature(row.id).kind == "good"]
    assert {row.state for row in good} == {"succeeded"}
    assert world.store.writes == 2 * len(world.natures)  # each is accepted once and ended once


def test_tasks_are_paused_and_resumed_among_all_those_faults() -> None:
    resumed = 0
    for seed in range(20):
        world = make(seed, most=9)
        world.play(faults.END_S)
        resumed += world.resumed
    assert resumed > 20


def test_poison_is_contained() -> None:
    world = World(3, requests=60, wanted=(2, 3, 2))
    for nature in world.natures.values():
        nature.kind, nature.fails_in = "good", ""
    world.natures["r30"].kind, world.natures["r30"].fails_in = "poison", "denoise"
    world.play(30.0)
    poison = world.store.rows["r30"]
    assert (poison.state, poison.code, len(poison.evidence)) == ("failed", "dead_letter", 3)
    assert sum(row.state == "succeeded" for row in world.store.rows.values()) == 59
    assert all(row.attempts == 1 for row in world.store.rows.values() if row is not poison)


def test_a_slow_last_stage_bounds_what_the_others_hold() -> None:
    world = World(5, requests=200, wanted=(2, 2, 1), over_s=1.0)
    world.slow = 50.0
    world.clockwork.run(120.0)
    assert world.head is not None
    slots = 3  # a worker computes one task and has two ahead
    before_denoise, before_decode = max(4, 2 * 2 * slots), max(4, 2 * 1 * slots)
    in_flight = slots * (2 + 2 + 1)
    # A request that has passed denoise may still hold its encode output too: until decode has begun.
    assert world.most_outputs <= before_denoise + 2 * before_decode + 2 * in_flight
    assert world.head.ledger.queued(next(iter(world.wanted))) > 100
