"""The ways between stages, as status shows them."""

from disagctl.distances import expected_routes
from disagctl.roster import Roster
from planner.domain import Role
from stages.protocol import AgentHello, Reached, WorkerVitals

ENCODE, DENOISE = Role("m", "encode"), Role("m", "denoise")


def roster() -> Roster:
    made = Roster({ENCODE: 1, DENOISE: 3})
    for node, host in (("n1", "a"), ("n2", "a"), ("n3", "b"), ("n4", "c")):
        made.node_hello(AgentHello(1, node, host, 1, 1, 1), 0.0)
        worker = made.vitals(node, WorkerVitals(f"{node}.cpu0.1", "cpu0", 1, "running"), 0.0)
        worker.role = ENCODE if node == "n1" else DENOISE
    return made


def test_each_pair_of_nodes_has_the_way_that_was_measured() -> None:
    made = roster()
    made.reached("n3", Reached("n1", 0.25))
    made.reached("n4", Reached("n1", None))
    views = expected_routes(made, [(ENCODE, DENOISE)], "auto")
    assert [(view.transport, view.why) for view in views] == [
        ("shm", "same host; up to 32 KiB inline"),
        ("zmq", "n1→n3 0.2 ms"),
        ("unreachable", "n1→n4: n4 cannot connect to n1"),
    ]
    made.node_lost("n4")
    assert ("n4", "n1") not in made.reach


def test_before_anything_is_measured_and_when_the_spec_has_said() -> None:
    assert {view.transport for view in expected_routes(roster(), [(ENCODE, DENOISE)], "auto")} == {"shm", "zmq"}
    (view,) = expected_routes(roster(), [(ENCODE, DENOISE)], "inline")
    assert (view.transport, view.why) == ("inline", "set in the spec")
