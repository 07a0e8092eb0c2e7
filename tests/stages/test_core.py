"""The worker's state machine, message by message."""

import pytest

from stages import core as limits
from stages import instructions as do
from stages import line
from stages import protocol as wire
from tests.stages.bench import ARTIFACT, assign, finish, hello, kinds, offer, ready, ref

# --- one task ---


def test_fetch_compute_publish_hold_release() -> None:
    core = ready()
    assert kinds(core.message(assign("a"))) == ["Fetch a"]
    assert kinds(core.fetched(ref("a"), 0.5)) == ["Send Started", "Compute a"]
    assert core.stepped(ref("a"), 1, 4) == [do.Send(wire.Step(ref("a"), 1, 4))]
    assert kinds(core.computed(ref("a"), 3.0)) == ["Publish a"]
    made = offer("made")
    assert core.published(ref("a"), made, None) == [do.Send(wire.Done(ref("a"), 3.0, made, None, 0.5))]
    assert hello(core) == ({}, ["a"])
    assert core.message(wire.Release((ref("a").key,))) == [do.Forget(ref("a").key)]
    assert hello(core) == ({}, [])


def test_what_is_small_is_published_by_the_computing_thread() -> None:
    core = ready()
    assert kinds(core.message(assign("a", inline=True))) == ["Send Started", "Compute a"]
    assert core.published(ref("a"), None, ARTIFACT, 3.0) == [do.Send(wire.Done(ref("a"), 3.0, None, ARTIFACT))]


def test_a_light_task_is_computed_at_once_and_its_start_is_not_told() -> None:
    core = ready(light=True)
    assert kinds(core.message(assign("a", inline=True))) == ["Compute a"]
    assert kinds(core.message(assign("b", inline=True))) == ["Compute b"]
    assert core.published(ref("a"), None, ARTIFACT, 1e-5) == [do.Send(wire.Done(ref("a"), 1e-5, None, ARTIFACT))]
    assert core.message(wire.Cancel(ref("b"))) == [do.Stop(ref("b"))]
    assert core.published(ref("b"), None, ARTIFACT, 1e-5) == [do.Forget(ref("b").key)]
    assert hello(core) == ({}, ["a"])
    assert kinds(core.message(assign("c"))) == ["Fetch c"]
    assert kinds(core.fetched(ref("c"), 0.0)) == ["Send Started", "Compute c"]


def test_the_same_assignment_twice_is_one_task() -> None:
    core = ready()
    core.message(assign("a"))
    assert core.message(assign("a")) == []
    core.fetched(ref("a"), 0.0)
    finish(core, "a")
    assert core.message(assign("a")) == []


def test_an_input_that_cannot_be_fetched_is_reported_and_forgotten() -> None:
    core = ready()
    core.message(assign("a"))
    assert core.fetch_failed(ref("a"), "gone") == [
        do.Forget(ref("a").key),
        do.Send(wire.InputLost(ref("a"), "a/encode/1", "gone")),
    ]
    assert core.tasks == {}


def test_a_failure_is_reported_with_the_field_at_fault() -> None:
    core = ready()
    core.message(assign("a", inline=True))
    out = core.compute_failed(ref("a"), "bad_request", "no such size", retry=False, param="size")
    assert do.Send(wire.Failed(ref("a"), "bad_request", "no such size", False, "size")) in out
    assert core.tasks == {}


# --- several tasks ---


def test_the_next_inputs_come_while_this_one_computes_and_the_last_result_leaves() -> None:
    core = ready()
    assert kinds(core.message(assign("a"))) == ["Fetch a"]
    assert kinds(core.message(assign("b"))) == ["Fetch b"]
    assert kinds(core.fetched(ref("a"), 0.0)) == ["Send Started", "Compute a"]
    assert kinds(core.fetched(ref("b"), 0.0)) == ["Compute b"]  # it stands in line: its start is not told
    assert kinds(core.message(assign("c"))) == ["Fetch c"]
    assert kinds(core.computed(ref("a"), 1.0)) == ["Publish a", "Send Started"]
    states = {held.task.ref.request: held.state for held in core.tasks.values()}
    assert states == {"a": line.PUBLISHING, "b": line.COMPUTING, "c": line.FETCHING}


def test_one_late_input_does_not_hold_up_the_others_and_fetches_are_bounded() -> None:
    core = ready()
    names = [f"r{i}" for i in range(limits.MAX_FETCHES)]
    for name in names:
        assert kinds(core.message(assign(name))) == [f"Fetch {name}"]
    assert core.message(assign("last")) == []
    assert kinds(core.fetched(ref("r1"), 0.0)) == ["Send Started", "Compute r1", "Fetch last"]


def test_synchronously_one_thing_happens_at_a_time() -> None:
    core = ready(synchronous=True)
    assert kinds(core.message(assign("a"))) == ["Fetch a"]
    core.message(assign("b"))
    assert kinds(core.fetched(ref("a"), 0.0)) == ["Send Started", "Compute a"]
    assert kinds(core.computed(ref("a"), 1.0)) == ["Publish a"]
    assert kinds(core.published(ref("a"), offer("a"), None)) == ["Send Done", "Fetch b"]
    assert kinds(core.fetched(ref("b"), 0.0)) == ["Send Started", "Compute b"]


# --- cancelling ---


@pytest.mark.parametrize("state", ["queued", "ready"])
def test_cancel_what_no_thread_has(state: str) -> None:
    core = ready()
    for name in ("first", "next in line"):
        core.message(assign(name, inline=True))
    for i in range(limits.MAX_FETCHES):
        core.message(assign(f"x{i}"))  # these occupy the fetching threads
    core.message(assign("a", inline=state == "ready"))
    assert kinds(core.message(wire.Cancel(ref("a")))) == ["Forget a"]
    assert "a" not in hello(core)[0]


def test_cancel_while_fetching() -> None:
    core = ready()
    core.message(assign("a"))
    core.message(assign("b"))
    assert core.message(wire.Cancel(ref("a"))) == []
    assert "a" not in hello(core)[0]  # it is as good as gone
    assert kinds(core.fetched(ref("a"), 0.0)) == ["Forget a"]
    assert kinds(core.message(wire.Cancel(ref("b")))) == []
    assert kinds(core.fetch_failed(ref("b"), "gone")) == ["Forget b"]


def test_cancel_while_computing_stops_at_the_next_step() -> None:
    core = ready()
    core.message(assign("a", inline=True))
    core.message(assign("b", inline=True))
    assert kinds(core.message(wire.Cancel(ref("a")))) == ["Stop a"]
    assert core.stepped(ref("a"), 1, 4) == []
    assert kinds(core.stopped(ref("a"))) == ["Forget a", "Send Started"]  # of b, which stood in line


def test_cancel_in_line_frees_the_task_at_once_and_its_place_when_the_thread_has_passed_it() -> None:
    core = ready()
    for name in ("a", "b", "c"):
        core.message(assign(name, inline=True))
    assert kinds(core.message(wire.Cancel(ref("b")))) == ["Stop b"]
    assert hello(core)[0] == {"a": True, "c": False}
    assert kinds(core.computed(ref("a"), 1.0)) == ["Publish a", "Compute c"]
    assert kinds(core.stopped(ref("b"))) == ["Forget b", "Send Started"]
    assert kinds(core.computed(ref("b"), 1.0)) == ["Forget b"]  # or it had been over before it heard of that


def test_the_line_is_longer_for_tasks_that_take_no_time() -> None:
    core = ready()
    for i in range(2 * limits.BRISK_AHEAD):
        core.message(assign(f"r{i}", inline=True))
    started = [held for held in core.tasks.values() if held.state == line.COMPUTING]
    assert len(started) == 1 + limits.AHEAD
    core.published(ref("r0"), offer("r0"), None, limits.BRISK_S / 2)
    computing = [held for held in core.tasks.values() if held.state == line.COMPUTING]
    assert len(computing) == 1 + limits.BRISK_AHEAD
    assert [held.started for held in computing] == [True] + limits.BRISK_AHEAD * [False]


@pytest.mark.parametrize("ending", ["computed", "published", "failed"])
def test_cancel_that_comes_too_late_to_stop_it(ending: str) -> None:
    core = ready()
    core.message(assign("a", inline=True))
    core.message(wire.Cancel(ref("a")))
    match ending:
        case "computed":
            out = core.computed(ref("a"), 1.0)
        case "published":
            out = core.published(ref("a"), offer("a"), None, 1.0)
        case _:
            out = core.compute_failed(ref("a"), "x", "x", retry=True)
    assert kinds(out) == ["Forget a"]
    assert hello(core) == ({}, [])


def test_cancel_while_publishing_and_when_held() -> None:
    core = ready()
    core.message(assign("a", inline=True))
    core.computed(ref("a"), 1.0)
    assert core.message(wire.Cancel(ref("a"))) == []
    assert kinds(core.published(ref("a"), offer("a"), None)) == ["Forget a"]
    core.message(assign("b", inline=True))
    finish(core, "b")
    assert kinds(core.message(wire.Cancel(ref("b")))) == ["Forget b"]
    assert hello(core) == ({}, [])


def test_cancel_and_release_of_what_was_never_here() -> None:
    core = ready()
    assert core.message(wire.Cancel(ref("a"))) == []
    assert core.message(wire.Release(("a/denoise/1", "b/denoise/2"))) == []


# --- agreeing again ---


def test_a_gap_a_question_and_a_new_head_are_answered_with_everything() -> None:
    core = ready()
    core.message(assign("held", inline=True))
    finish(core, "held")
    core.message(assign("computing", inline=True))
    core.message(assign("waiting", inline=True))
    core.message(assign("cancelled"))
    core.message(wire.Cancel(ref("cancelled")))
    assert hello(core) == ({"computing": True, "waiting": False}, ["held"])
    assert core.message(wire.Welcome(1)) == []  # the first head it meets
    assert core.message(wire.Welcome(1)) == []
    everything = [do.Send(core.hello())]
    assert core.gap() == everything
    assert core.message(wire.Who()) == everything
    assert core.message(wire.Welcome(2)) == everything
    assert core.beat() == [do.Send(wire.Beat(2))]


def test_completions_of_forgotten_tasks_change_nothing() -> None:
    core = ready()
    gone = ref("gone")
    assert core.fetched(gone, 0.0) == core.stepped(gone, 1, 2) == []
    forget = [do.Forget(gone.key)]
    assert core.fetch_failed(gone, "x") == core.computed(gone, 1.0) == forget
    assert core.compute_failed(gone, "x", "x", retry=True) == forget
    assert core.published(gone, offer("x"), None) == core.stopped(gone) == [do.Forget(gone.key)]


def test_peers_are_passed_on() -> None:
    assert ready().message(wire.Peers(("k1", "k2"))) == [do.AllowPeers(("k1", "k2"))]


def test_a_worker_that_cannot_stop_what_was_cancelled_no_longer_vouches_for_itself() -> None:
    core = ready()
    core.message(assign("a", inline=True))
    assert all(core.beat() for _ in range(2 * limits.STOP_BEATS))  # a long task is no reason
    core.message(wire.Cancel(ref("a")))
    assert all(core.beat() for _ in range(limits.STOP_BEATS))
    assert core.beat() == []
    core.stopped(ref("a"))
    assert core.beat() == [do.Send(wire.Beat(0))]


def test_the_number_of_gpus_of_a_task_changes_while_it_computes() -> None:
    core = ready()
    core.message(assign("a", inline=True))
    assert core.message(wire.Spread(ref("a"), 2)) == [do.SetDegree(ref("a"), 2)]
    core.published(ref("a"), None, ARTIFACT, 3.0)
    assert core.message(wire.Spread(ref("a"), 1)) == []
