"""A worker that drains, or becomes something else."""

import pytest

from stages import core as limits
from stages import instructions as do
from stages import protocol as wire
from stages.core import WorkerCore
from tests.stages.bench import DENOISE, ENCODE, SOURCE, assign, finish, hello, kinds, offer, ready, ref


def test_drain_hands_back_what_has_not_started_and_finishes_the_rest() -> None:
    core = ready()
    core.message(assign("computing", inline=True))
    core.message(assign("fetching"))
    for i in range(limits.MAX_FETCHES - 1):
        core.message(assign(f"fetching{i}"))
    core.message(assign("queued"))
    core.message(assign("waiting", inline=True))
    out = core.message(wire.Drain())
    assert [it.message.ref.request for it in out if isinstance(it, do.Send)] == ["queued", "waiting"]  # type: ignore[union-attr]
    for name in ("fetching", *(f"fetching{i}" for i in range(limits.MAX_FETCHES - 1))):
        assert kinds(core.fetched(ref(name), 0.0)) == [f"Forget {name}", "Send Returned"]
    assert kinds(core.message(assign("late"))) == ["Send Returned"]
    assert kinds(finish(core, "computing")) == ["Send Done"]
    assert kinds(core.message(wire.Release((ref("computing").key,)))) == ["Forget computing", "Send Drained"]
    assert kinds(core.message(wire.Drain())) == ["Send Drained"]  # should the first have been lost


def test_drain_before_there_is_a_role() -> None:
    core = WorkerCore("w", "n1", 1)
    assert kinds(core.message(wire.Drain())) == ["Send Drained"]
    assert kinds(core.message(wire.SetRole(DENOISE, SOURCE))) == ["Load denoise"]


def test_the_same_role_again_ends_a_drain() -> None:
    core = ready()
    core.message(assign("a", inline=True))
    core.message(wire.Drain())
    assert kinds(core.message(wire.SetRole(DENOISE, SOURCE))) == ["Send RoleReady"]
    assert kinds(core.message(assign("b"))) == ["Fetch b"]


def test_the_same_role_twice_loads_once() -> None:
    core = WorkerCore("w", "n1", 1)
    core.message(wire.SetRole(DENOISE, SOURCE))
    assert core.message(wire.SetRole(DENOISE, SOURCE)) == []
    core.loaded(DENOISE, 1.0, 0)
    assert kinds(core.message(wire.SetRole(DENOISE, SOURCE))) == ["Send RoleReady"]


@pytest.mark.parametrize(
    "other", [wire.SetRole(ENCODE, SOURCE), wire.SetRole(DENOISE, wire.ModelSource("m", "synthetic", options=b"1"))]
)
def test_another_role_or_model_drains_unloads_and_loads(other: wire.SetRole) -> None:
    core = ready()
    core.message(assign("a", inline=True))
    core.message(assign("b", inline=True))
    assert kinds(core.message(other)) == ["Stop b", "Send Returned"]
    assert kinds(finish(core, "a")) == ["Send Done", "Unload", f"Load {other.role.stage}"]
    assert hello(core) == ({}, ["a"]), "what it made can still be had"
    assert kinds(core.message(assign("c"))) == ["Send Returned"]
    assert kinds(core.loaded(other.role, 1.0, 0)) == ["Send RoleReady"]
    assert kinds(core.message(wire.Release((ref("a").key,)))) == ["Forget a"]


def test_an_output_of_the_old_role_is_freed_while_the_new_one_loads() -> None:
    core = ready()
    core.message(assign("a", inline=True))
    core.message(wire.SetRole(ENCODE, SOURCE))
    finish(core, "a")
    assert core.phase == "loading"
    assert kinds(core.message(wire.Release((ref("a").key,)))) == ["Forget a"]


def test_a_result_that_is_being_sent_is_sent_before_the_switch() -> None:
    core = ready()
    core.message(assign("a", inline=True))
    core.message(wire.SetRole(ENCODE, SOURCE))
    assert kinds(core.computed(ref("a"), 1.0)) == ["Publish a"]
    assert kinds(core.published(ref("a"), offer("a"), None))[-1] == "Load encode"


def test_back_to_the_old_role_before_it_was_left() -> None:
    core = ready()
    core.message(assign("a", inline=True))
    core.message(wire.SetRole(ENCODE, SOURCE))
    assert kinds(core.message(wire.SetRole(DENOISE, SOURCE))) == ["Send RoleReady"]
    assert kinds(finish(core, "a")) == ["Send Done"]
    assert core.role == DENOISE


def test_a_drain_ends_a_switch_that_has_not_begun() -> None:
    core = ready()
    core.message(assign("a", inline=True))
    core.message(wire.SetRole(ENCODE, SOURCE))
    core.message(wire.Drain())
    finish(core, "a")
    assert kinds(core.message(wire.Release((ref("a").key,)))) == ["Forget a", "Send Drained"]


def test_another_role_while_loading_is_loaded_next() -> None:
    core = WorkerCore("w", "n1", 1)
    core.message(wire.SetRole(DENOISE, SOURCE))
    assert core.message(wire.SetRole(ENCODE, SOURCE)) == []
    assert kinds(core.loaded(DENOISE, 1.0, 0)) == ["Send RoleReady", "Unload", "Load encode"]


def test_another_role_while_loading_is_loaded_even_if_the_first_fails() -> None:
    core = WorkerCore("w", "n1", 1)
    core.message(wire.SetRole(DENOISE, SOURCE))
    core.message(wire.SetRole(ENCODE, SOURCE))
    assert kinds(core.load_failed(DENOISE, "no such folder", fatal=True)) == ["Send RoleFailed", "Load encode"]


def test_a_role_that_failed_to_load_can_be_given_again() -> None:
    core = WorkerCore("w", "n1", 1)
    core.message(wire.SetRole(DENOISE, SOURCE))
    core.load_failed(DENOISE, "no memory", fatal=False)
    assert core.hello().role is None
    assert kinds(core.message(wire.SetRole(DENOISE, SOURCE))) == ["Load denoise"]
