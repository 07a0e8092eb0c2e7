"""What the head knows of how tensors travel, and what it makes of it."""

from disagctl.roster import NodeState, Roster
from disagctl.routes import INLINE, Routes
from stages.protocol import Reach, Via

SHM, ZMQ = Via("shm", "the same host"), Via("zmq", "the only one to 10.0.0.2")


def roster(**hosts: str) -> Roster:
    """Workers named ``w1=host`` …, each on a node of its own."""
    made = Roster({})
    for name, host in hosts.items():
        node = f"n{name[1:]}"
        made.nodes[node] = NodeState(node, host)
        made.worker(f"{node}.m.encode.0.1", node).greeted = True
    return made


def told(routes: Routes) -> dict[str, Reach]:
    return {worker.partition(".")[0]: reach for worker, reach in routes.news()}


def test_on_one_host_there_is_no_news() -> None:
    assert told(Routes(roster(w1="a", w2="a"))) == {}


def test_with_two_hosts_everybody_is_told_once() -> None:
    routes = Routes(roster(w1="a", w2="a", w3="b"))
    assert told(routes) == dict.fromkeys(("n1", "n2", "n3"), Reach(("a",), several=True))
    assert told(routes) == {}
    routes.joined("n2.m.encode.0.1")  # it may have forgotten
    assert set(told(routes)) == {"n2"}


def test_whom_nobody_reaches_goes_through_the_store_if_there_is_one() -> None:
    routes = Routes(roster(w1="a", w2="b"))
    told(routes)
    assert not routes.cut_off("n1.m.encode.0.1"), "there is no store"
    routes.relay = True
    assert routes.cut_off("n1.m.encode.0.1")
    assert not routes.cut_off("n1.m.encode.0.1"), "once is enough"
    assert not routes.cut_off("n9.m.encode.0.1")
    assert told(routes) == {"n1": Reach((), several=True, relay=True)}


def test_pairs_that_tensors_went_between() -> None:
    routes = Routes(roster(w1="a", w2="b"))
    routes.used("x", "y", None)
    assert routes.used_pairs == {("x", "y"): INLINE}
    routes.used("x", "y", ZMQ)
    routes.used("x", "y", None)  # a small one now and then does not hide how the others travel
    routes.used("z", "y", SHM)
    assert routes.used_pairs == {("x", "y"): ZMQ, ("z", "y"): SHM}
    routes.left("x")
    assert routes.used_pairs == {("z", "y"): SHM}
