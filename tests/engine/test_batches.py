"""Batches in a whole service on virtual time: formed of what waits, and no member pays for another."""

from planner.run.book import Limits
from stages.protocol import Assign
from tests.engine.bench import WORKER, Bench
from tests.engine.world import World


def quiet(seed: int, **options: float) -> World:
    """Many requests at once, all of them good."""
    world = World(seed, requests=40, wanted=(1, 1, 1), over_s=1.0, batch=4, **options)  # type: ignore[arg-type]
    for nature in world.natures.values():
        nature.kind, nature.fails_in = "good", ""
    return world


def test_what_waits_is_computed_at_once() -> None:
    world = quiet(1)
    world.play(30.0)
    slowest = [size for stage, size in world.batches if stage == "denoise"]
    assert sum(slowest) / len(slowest) >= 3
    assert {(row.state, row.attempts) for row in world.store.rows.values()} == {("succeeded", 1)}


def test_a_request_that_kills_its_worker_takes_no_other_with_it() -> None:
    world = quiet(2)
    world.natures["r20"].kind, world.natures["r20"].fails_in = "poison", "denoise"
    world.play(30.0)
    poison = world.store.rows["r20"]
    assert (poison.state, poison.code, len(poison.evidence)) == ("failed", "dead_letter", 3)
    assert {(row.state, row.attempts) for row in world.store.rows.values() if row is not poison} == {("succeeded", 1)}


def test_one_that_fails_is_computed_alone_and_so_are_the_others() -> None:
    world = quiet(3)
    world.natures["r20"].kind, world.natures["r20"].fails_in = "bad", "denoise"
    world.play(30.0)
    assert world.store.rows["r20"].code == "bad_request"
    rest = [row for row in world.store.rows.values() if row.id != "r20"]
    assert {(row.state, row.attempts) for row in rest} == {("succeeded", 1)}


def test_members_are_cancelled_one_by_one() -> None:
    world = quiet(4)
    for second in (1.5, 2.0, 3.0, 4.0, 5.0):
        world.clockwork.at(second, lambda: _cancel_computing(world))
    world.play(30.0)
    assert len(world.cancelled) >= 2
    assert {row.attempts for row in world.store.rows.values() if row.state == "succeeded"} == {1}


def _cancel_computing(world: World) -> None:
    for proc in world.procs.values():
        if len(proc.computing) > 1:
            world.cancel(proc.computing[0].request)
            return


def given(bench: Bench) -> list[str]:
    return [message.task.ref.request for message in bench.sent[WORKER] if isinstance(message, Assign)]


def test_an_idle_worker_waits_no_longer_than_it_may() -> None:
    bench = Bench(limits=Limits(batch=3, batch_wait_s=0.05))
    bench.up()
    assert bench.submit("a", alike="x") is None
    assert bench.ledger.look_again_s == bench.now + 0.05
    bench.now += 0.05
    bench.engine.act()
    assert given(bench) == ["a"]


def test_a_full_batch_waits_for_nothing_and_neither_does_what_shares_none() -> None:
    bench = Bench(limits=Limits(batch=2, batch_wait_s=10.0))
    bench.up()
    assert bench.submit("a", alike="x") is None
    bench.submit("b", alike="x")
    assert given(bench) == ["a", "b"]
    bench = Bench(limits=Limits(batch=2, batch_wait_s=10.0))
    bench.up()
    assert bench.submit("c") is not None
