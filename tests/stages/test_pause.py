"""Pausing, in the worker: the state machine message by message, and the jobs and snapshots that it keeps."""

import pytest

from stages import instructions as do
from stages import protocol as wire
from stages.models.synthetic import StageOptions, SyntheticStage
from stages.parcel import Parcel, ParcelError, pack, unpack
from stages.suspended import Suspended
from tests.stages.bench import assign, hello, kinds, offer, ready, ref


def test_a_task_in_the_making_stops_at_a_step_and_its_snapshot_is_held() -> None:
    core = ready()
    core.message(assign("a", inline=True))
    core.message(assign("b", inline=True))
    assert core.message(wire.Pause(ref("a"))) == [do.Suspend(ref("a"))]
    assert kinds(core.paused(ref("a"), 2, 5, 1.0)) == ["Publish a", "Send Started"]  # b goes on at once
    kept = offer("a")
    assert core.published(ref("a"), kept, None)[0] == do.Send(wire.Paused(ref("a"), 2, 5, 1.0, kept))
    assert core.held[ref("a").key] == wire.HeldOutput(ref("a"), kept, None, 2, 1.0)
    assert hello(core) == ({"b": True}, ["a"])
    assert core.message(wire.Release((ref("a").key,))) == [do.Forget(ref("a").key)]


def test_what_has_not_begun_comes_back_at_once() -> None:
    core = ready()
    for name in ("a", "b"):
        core.message(assign(name, inline=True))
    core.message(assign("c"))
    assert do.Send(wire.Paused(ref("b"), 0, 0)) in core.message(wire.Pause(ref("b")))
    assert core.message(wire.Pause(ref("c"))) == [do.Send(wire.Paused(ref("c"), 0, 0))]
    assert kinds(core.fetched(ref("c"), 0.1)) == ["Forget c"]
    assert do.Send(wire.Paused(ref("a"), 0, 0)) in core.untouched(ref("a"))
    assert core.tasks == {}


def test_a_task_resumed_where_it_was_paused_needs_no_fetch() -> None:
    core = ready()
    core.message(assign("a", inline=True))
    core.paused(ref("a"), 2, 5, 1.0)
    core.published(ref("a"), offer("a"), None)
    kept = wire.Offer(ref("a").key, b"", (), offer("a").routes)
    again = wire.Task(ref("a", 2), "m", 1, b"{}", kept, 2, 1.0)
    assert kinds(core.message(wire.Assign(again))) == ["Send Started", "Compute a"]
    core.computed(ref("a", 2), 3.0)
    [done] = core.published(ref("a", 2), offer("x"), None)
    assert isinstance(done, do.Send)
    assert isinstance(done.message, wire.Done)
    assert done.message.seconds == 4.0  # with what the snapshot had cost


def test_elsewhere_the_snapshot_is_fetched() -> None:
    core = ready()
    task = wire.Task(ref("a", 2), "m", 1, b"{}", offer("a"), 2, 1.0)
    assert kinds(core.message(wire.Assign(task))) == ["Fetch a"]


def test_a_snapshot_that_cannot_be_kept_is_told_with_the_reason() -> None:
    core = ready()
    core.message(assign("a", inline=True))
    core.paused(ref("a"), 2, 5, 1.0)
    told = core.compute_failed(ref("a"), "publish", "no room", retry=True)
    assert do.Send(wire.Paused(ref("a"), 2, 5, 1.0, None, "no room")) in told


def test_a_pause_too_late_or_refused_changes_nothing() -> None:
    core = ready()
    core.message(assign("a", inline=True))
    assert core.pause_refused(ref("a"), "in one piece") == [do.Send(wire.PauseRefused(ref("a"), "in one piece"))]
    core.computed(ref("a"), 1.0)
    assert core.message(wire.Pause(ref("a"))) == []
    assert core.message(wire.Pause(ref("nobody"))) == []


# --- what is kept ---


def snapshot(nbytes: int = 0) -> Parcel:
    made = pack({"n": 1})
    return made if not nbytes else Parcel(made.tree, (wire.TensorDesc((nbytes,), "uint8", nbytes, 0),), ())


def test_snapshots_are_bounded_by_bytes_and_jobs_by_number() -> None:
    kept = Suspended(limit_bytes=100, most_jobs=1)
    stage = SyntheticStage("denoise", StageOptions(steps=4), last=False)
    jobs = [stage.start({"seed": seed}, None) for seed in (1, 2)]
    for key, job in zip("ab", jobs, strict=True):
        kept.put(key, kept.fitting(snapshot(40)), job)
    assert kept.take("a") is None  # it gave way to the other, and has its snapshot
    assert kept.take("b") is jobs[1]
    with pytest.raises(ParcelError, match="40 bytes and the 80 held are more than the 100"):
        kept.fitting(snapshot(40))
    kept.forget("a")
    kept.fitting(snapshot(40))


def test_jobs_on_the_device_are_bounded_by_bytes_too() -> None:
    kept = Suspended(most_jobs=3, device_bytes=100)
    stage = SyntheticStage("denoise", StageOptions(steps=4), last=False)
    jobs = {key: stage.start({"seed": 1}, None) for key in "abcd"}
    for key, nbytes in (("a", 40), ("b", 50), ("c", 30)):
        kept.put(key, snapshot(nbytes), jobs[key])
    assert kept.take("a") is None
    assert kept.take("b") is jobs["b"]
    kept.put("d", snapshot(101), jobs["d"])  # by itself more than there is room for: it resumes from its snapshot
    assert kept.take("d") is None
    assert kept.take("c") is None


def test_a_synthetic_job_goes_on_where_it_was() -> None:
    stage = SyntheticStage("denoise", StageOptions(steps=4), last=False)
    whole = stage.start({"seed": 1}, None)
    while whole.step():
        pass
    job = stage.start({"seed": 1}, None)
    job.step()
    again = stage.resume({"seed": 1}, job.snapshot())
    assert again.steps_done == 1
    while again.step():
        pass
    left, right = whole.finish(), again.finish()
    assert isinstance(left, Parcel)
    assert isinstance(right, Parcel)
    assert unpack(left) == unpack(right)
