"""The engine between hub and ledger: who is asked, who is believed, which processes are wished for."""

import pytest

from disagctl.roster import DRAIN_S, GREET_S, HANG_S
from planner.domain import TaskRef
from planner.run.book import Request
from stages import protocol as wire
from tests.engine.bench import ENCODE, SLOT, WORKER, Bench


def test_a_worker_is_welcomed_given_its_role_and_then_work() -> None:
    bench = Bench()
    bench.agent(hello=True)
    assert [wish.slot for wish in bench.wished()] == [SLOT]
    bench.hello()
    assert bench.told(WORKER) == ["Welcome", "Peers", "SetRole"]
    bench.hear(WORKER, wire.RoleReady(ENCODE, 1.0))
    assert bench.submit("a") is not None
    assert bench.told(WORKER) == ["Assign"]
    assert bench.events == ["node_up", "worker_ready"]


def test_a_stranger_is_asked_who_it_is_and_not_believed() -> None:
    bench = Bench()
    bench.hear(WORKER, wire.Done(TaskRef("a", "encode", 1), 1.0), wire.Beat(0))
    assert bench.told(WORKER) == ["Who"]
    bench.hear("n1", wire.AgentBeat(0))
    assert bench.told("n1") == ["Welcome", "Who"]


def test_a_worker_speaking_another_version_is_refused() -> None:
    bench = Bench()
    bench.hear(WORKER, wire.Hello(99, WORKER, "n1", 1))
    bench.hear(WORKER, wire.Hello(wire.PROTOCOL_VERSION, "n1.m.encode.0.2", "n1", 1))
    assert bench.events == ["refused", "refused"]
    assert bench.roster.workers == {}


def test_an_agent_vouches_for_a_busy_worker_and_not_for_a_stopped_one() -> None:
    bench = Bench()
    bench.up()
    ref = bench.submit("a")
    bench.pass_time(10.0, agent=(WORKER,))
    assert bench.holder("a") == WORKER
    for _ in range(14):
        bench.now += 0.5
        bench.agent(WORKER, state="stopped")
        bench.engine.tick()
    assert bench.holder("a") is None
    bench.sent.clear()
    for _ in range(3):  # goes on: its beats have waited for it
        bench.hear(WORKER, wire.Beat(1))
    assert bench.told(WORKER).count("Who") == 1
    assert ref is not None
    bench.hello(phase="ready", tasks=(wire.HeldTask(ref, True),))
    assert bench.holder("a") == WORKER
    assert bench.told(WORKER).count("Assign") == 0  # it goes on with what it has


def test_a_worker_that_hangs_is_replaced_and_no_longer_believed() -> None:
    bench = Bench()
    bench.up()
    bench.pass_time(HANG_S + 1.0, agent=(WORKER,))
    assert bench.events.count("worker_hung") == 1
    assert [wish.generation for wish in bench.wished()] == [1]
    bench.sent.clear()
    bench.hello(phase="ready")
    bench.hear(WORKER, wire.Beat(1))
    assert bench.told(WORKER) == []
    assert bench.ledger.workers == {}
    bench.pass_time(HANG_S, agent=(WORKER,))
    assert bench.events.count("worker_hung") == 1


def test_a_process_that_never_says_hello_is_replaced() -> None:
    bench = Bench()
    bench.agent(hello=True)
    bench.pass_time(GREET_S - 1.0, agent=(WORKER,))
    assert "worker_hung" not in bench.events
    bench.pass_time(2.0, agent=(WORKER,))
    assert bench.events.count("worker_hung") == 1


def test_the_heads_own_sleep_hangs_nobody() -> None:
    bench = Bench()
    bench.up()
    bench.submit("a")
    bench.now += 3600.0
    bench.agent(WORKER)
    bench.engine.tick()
    bench.pass_time(4.0, agent=(WORKER,))
    assert "worker_hung" not in bench.events
    assert "node_silent" not in bench.events
    assert WORKER in bench.ledger.workers


@pytest.mark.parametrize("noticed", ["exit", "absence"])
def test_a_worker_that_ended_is_forgotten_even_if_nobody_said_so(noticed: str) -> None:
    bench = Bench()
    bench.up()
    ref = bench.submit("a")
    assert ref is not None
    if noticed == "exit":
        bench.hear("n1", wire.AgentBeat(1, (wire.WorkerVitals(WORKER, SLOT, 1, "exited", -9, computing=(ref,)),)))
    else:
        bench.pass_time(6.0)
    assert bench.roster.workers == {}
    assert bench.events[-1] == "worker_lost"
    assert bench.ledger.queued(ENCODE) == 1
    bench.hello(phase="ready")  # its last words come late
    bench.pass_time(6.0)
    assert bench.roster.workers == {}


def test_fewer_wanted_drains_and_then_ends() -> None:
    bench = Bench()
    bench.up()
    ref = bench.submit("a")
    assert ref is not None
    bench.roster.wanted[ENCODE] = 0
    bench.rewish()
    assert bench.told(WORKER)[-1] == "Drain"
    assert [wish.slot for wish in bench.wished()] == [SLOT]  # until it has drained
    bench.hello(phase="draining")  # should the order have been lost
    assert "Drain" in bench.told(WORKER)
    bench.hear(WORKER, wire.Drained())
    assert bench.wished() == []
    bench.sent.clear()
    bench.hear(WORKER, wire.Beat(1))
    bench.hello(phase="draining")
    assert bench.told(WORKER) == []  # its end has been ordered: no new role, no work
    bench.hear("n1", wire.AgentBeat(1, (wire.WorkerVitals(WORKER, SLOT, 1, "exited", 0),)))
    assert "worker_lost" not in bench.events


def test_one_that_drains_and_is_wanted_again_goes_on() -> None:
    bench = Bench()
    bench.up()
    bench.roster.wanted[ENCODE] = 0
    bench.rewish()
    bench.sent.clear()
    bench.roster.wanted[ENCODE] = 1
    bench.rewish()
    assert bench.told(WORKER) == ["SetRole"]
    bench.hear(WORKER, wire.RoleReady(ENCODE, 1.0))
    assert bench.submit("a") is not None


def test_one_told_to_drain_while_it_loads_drains_when_it_has() -> None:
    bench = Bench()
    bench.agent(hello=True)
    bench.agent(WORKER)
    bench.hello()
    bench.roster.wanted[ENCODE] = 0
    bench.rewish()
    bench.sent.clear()
    bench.hear(WORKER, wire.RoleReady(ENCODE, 1.0))
    assert bench.told(WORKER) == ["Drain"]
    assert bench.submit("a") is None


def test_one_that_cannot_drain_is_ended_in_the_end() -> None:
    bench = Bench()
    bench.up()
    bench.roster.wanted[ENCODE] = 0
    bench.rewish()
    bench.roster.draining[WORKER] = bench.now - DRAIN_S
    bench.pass_time(0.5, agent=(WORKER,), beat=(WORKER,))
    assert bench.wished() == []


def test_one_that_drains_and_dies_is_not_started_again() -> None:
    bench = Bench()
    bench.up()
    bench.roster.wanted[ENCODE] = 0
    bench.rewish()
    bench.sent.clear()
    bench.hear("n1", wire.AgentBeat(1, (wire.WorkerVitals(WORKER, SLOT, 1, "exited", -9),)))
    assert bench.wished() == []
    assert bench.roster.draining == {}


def test_a_new_head_leaves_the_nodes_as_they_are_until_they_had_time_to_report() -> None:
    bench = Bench(2)
    bench.engine.restart(2, ["n1", "n2"])
    bench.ledger.recover([Request("a", "m", ("encode",), b"{}", 0, 0.0)], 0.0, 5.0)
    other = "n2.m.encode.1.4"
    bench.agent(WORKER, hello=True)
    bench.hello(phase="ready")
    bench.pass_time(1.0, agent=(WORKER,), beat=(WORKER,))
    assert "Wishes" not in bench.told("n1")  # n2 has not reported
    vitals = (wire.WorkerVitals(other, "cpu1", 1, "running"),)
    bench.hear("n2", wire.AgentHello(wire.PROTOCOL_VERSION, "n2", "h2", 1, 8, 1, (), vitals))
    bench.hear(other, wire.Hello(wire.PROTOCOL_VERSION, other, "n2", 1, ENCODE, "ready"))
    bench.engine.tick()
    assert not bench.ledger.holding
    assert [wish.slot for wish in bench.wished()] == [SLOT]
    assert "Drain" not in bench.told(WORKER) + bench.told(other)


def test_a_role_that_cannot_be_loaded_is_tried_again_unless_that_is_hopeless() -> None:
    bench = Bench()
    bench.up()
    bench.hear(WORKER, wire.RoleFailed(ENCODE, "no memory"))
    assert bench.ledger.takes(WORKER) is None
    bench.pass_time(11.0, agent=(WORKER,), beat=(WORKER,))
    assert bench.told(WORKER).count("SetRole") == 1
    bench.hear(WORKER, wire.RoleFailed(ENCODE, "no such model", fatal=True))
    bench.pass_time(20.0, agent=(WORKER,), beat=(WORKER,))
    assert "SetRole" not in bench.told(WORKER)


def test_a_result_said_twice_keeps_its_upload_and_a_fenced_one_loses_it() -> None:
    bench = Bench()
    bench.up()
    ref = bench.submit("a")
    assert ref is not None
    done = wire.Done(ref, 1.0, artifact=wire.Artifact("video/mp4", 9, 0))
    bench.hear(WORKER, done, done)
    assert bench.uploads_discarded == []
    stale = TaskRef("a", "encode", ref.epoch - 1)
    bench.hear(WORKER, wire.Done(stale, 1.0, artifact=wire.Artifact("video/mp4", 9, 0)))
    assert bench.uploads_discarded == [stale]


def test_a_slot_that_moves_to_another_node_is_left_alone_there() -> None:
    bench = Bench(2)
    bench.up()
    second = "n1.cpu1.1"
    bench.agent(WORKER, second)
    bench.hello(second, phase="ready")
    bench.hear("n2", wire.AgentHello(wire.PROTOCOL_VERSION, "n2", "h2", 1, 8, 1))  # now they need not share
    (moved,) = [wish for message in bench.sent["n2"] if isinstance(message, wire.Wishes) for wish in message.workers]
    assert (moved.slot, moved.generation) == ("cpu0", 0)
    assert bench.told(second)[-1] == "Drain"
    bench.hear(second, wire.Drained())  # its end has been ordered, its namesake's has not
    bench.rewish()
    assert [w.generation for m in bench.sent["n2"] if isinstance(m, wire.Wishes) for w in m.workers] == [0, 0]


def test_a_node_that_reports_late_to_a_new_head_keeps_its_workers() -> None:
    bench = Bench(2)
    bench.engine.restart(2, ["n1"])
    bench.ledger.recover([], 0.0, 5.0)
    bench.hello(phase="ready")
    for _ in range(20):  # only the worker gets through, not the agent
        bench.now += 0.5
        bench.hear(WORKER, wire.Beat(2))
        bench.engine.tick()
    assert not bench.ledger.holding
    other = wire.WorkerVitals("n1.cpu1.1", "cpu1", 1, "exited", -9)
    vitals = (wire.WorkerVitals(WORKER, SLOT, 1, "running"), other)
    bench.hear("n1", wire.AgentHello(wire.PROTOCOL_VERSION, "n1", "h", 1, 8, 1, (), vitals))
    wishes = [message for message in bench.sent["n1"] if isinstance(message, wire.Wishes)]
    assert [[wish.slot for wish in message.workers] for message in wishes] == [[SLOT, "cpu1"]]


def test_whom_a_worker_cannot_reach_is_told_to_use_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.up()
    bench.engine.routes.relay = True
    ref = bench.submit("a")
    assert ref is not None
    monkeypatch.setattr(bench.ledger, "source_of", lambda _ref: WORKER)
    bench.sent.clear()
    bench.hear(WORKER, wire.InputLost(ref, "k", "zmq: connection lost", unreachable=True))
    assert bench.sent[WORKER][0] == wire.Reach((), several=False, relay=True)
    assert bench.events.count("transport") == 1


def test_a_remembered_result_is_counted_and_no_compute_time() -> None:
    bench = Bench()
    bench.up()
    ref = bench.submit("a")
    assert ref is not None
    artifact = wire.Artifact("image/png", 3, 0, b"png")
    bench.hear(WORKER, wire.Done(ref, 0.001, artifact=artifact, cached=True))
    assert bench.engine.tally.remembered == {ENCODE: [0, 1]}
    assert bench.engine.tally.durations == {}


def test_a_node_that_will_be_taken_away_is_given_nothing_and_its_tasks_are_paused() -> None:
    bench = Bench()
    bench.up()
    first = bench.submit("a")
    assert first is not None
    bench.hear("n1", wire.Notice("spot"))
    assert bench.told(WORKER) == ["Assign", "Drain", "Pause"]
    assert bench.events.count("notice") == 1
    bench.hear("n1", wire.Notice("spot"))
    assert bench.told(WORKER) == []
    bench.hear(WORKER, wire.Paused(first, 0, 0))
    assert bench.holder("a") is None  # there is no other worker yet
    assert bench.ledger.requests["a"].snapshot is None
