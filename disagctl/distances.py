"""How tensors will travel between two stages, from what the nodes have measured of each other. Pure reading."""

from collections.abc import Iterable
from typing import Final

from disagctl.roster import NodeState, Roster
from disagctl.views import RouteView
from planner.domain import Role

SHOWN: Final = 4  # pairs of nodes named in one line


def expected_routes(roster: Roster, pairs: Iterable[tuple[Role, Role]], mode: str) -> list[RouteView]:
    """One for each pair of stages and way there is between the nodes that hold them."""
    out: list[RouteView] = []
    for source, target in pairs:
        by_way: dict[str, list[str]] = {}
        for a in _nodes(roster, source):
            for b in _nodes(roster, target):
                way, why = _way(roster, a, b, mode)
                by_way.setdefault(way, []).append(why)
        for way, reasons in by_way.items():
            some = list(dict.fromkeys(reasons))
            more = f" and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
            out.append(RouteView(str(source), str(target), way, ", ".join(some[:SHOWN]) + more))
    return out


def _nodes(roster: Roster, role: Role) -> list[NodeState]:
    names = sorted({w.node for w in roster.in_role(role)})
    return [roster.nodes[name] for name in names if name in roster.nodes]


def _way(roster: Roster, a: NodeState, b: NodeState, mode: str) -> tuple[str, str]:
    """(transport, why). The receiver pulls: what counts is whether ``b`` reaches ``a``."""
    pair = f"{a.id}→{b.id}"
    if mode != "auto":
        return mode, "set in the spec"
    if a.host == b.host:
        return "shm", "same host; up to 32 KiB inline"
    if (b.id, a.id) not in roster.reach:
        return "zmq", f"{pair}: different hosts, not measured yet"
    ms = roster.reach[b.id, a.id]
    if ms is None:
        return "unreachable", f"{pair}: {b.id} cannot connect to {a.id}"
    return "zmq", f"{pair} {ms:.1f} ms"
