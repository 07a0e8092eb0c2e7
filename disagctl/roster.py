"""What the head has observed of nodes and workers, and what it wishes of each node. State only; no sockets.

The ledger knows workers that can take tasks; the roster knows every process, also one that loads, drains or hangs.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from planner.domain import Role
from planner.run.fleet import UNKNOWN, Bundles, NodeRoom, Seat, Shares, SlotPlan, by_worth, slot_gpu, slot_gpus
from planner.run.wide import Widths, seat_all
from stages.protocol import AgentHello, Reached, WorkerVitals, WorkerWish

HANG_S: Final = 60.0  # a worker whose I/O thread is silent for this long is no longer vouched for, alive or not
GREET_S: Final = 120.0  # a process that has not said Hello for this long never will
DRAIN_S: Final = 1800.0  # longest wait for a worker to finish before it is ended
YIELD_S: Final = 30.0  # the same, where all that it can still do is to hold what can be made again


class WorkerState(msgspec.Struct):
    """A worker process. ``role``: what it is to be; ``has``: what it said it has loaded, or loads. None: not known.

    phase: starting | loading | ready | switching (from one role to another) | draining, as far as it has told.
    """

    id: str
    node: str
    slot: str
    role: Role | None = None
    has: Role | None = None
    phase: str = "starting"
    pid: int = 0
    rss_bytes: int = 0
    load_s: float | None = None
    heard_s: float = 0.0
    asked_s: float = 0.0
    greeted: bool = False  # it has said Hello since we last lost sight of it
    running: bool = True  # as the agent sees it: not stopped
    why: str = ""
    fatal: bool = False
    doomed: bool = False  # the agent was told to end it: whatever it still says does not count
    retry_role_s: float | None = None
    given: Role | None = None  # what it was told to be since it last said Hello
    ordered_s: float | None = None  # since when it switches
    left: Role | None = None  # what it had before
    worked: bool = False  # it has had a role, and may hold what it made
    done: int = 0  # tasks since it is in this role

    @property
    def gpu(self) -> int | None:
        """The GPU it runs on, the first of several."""
        return slot_gpu(self.slot)

    @property
    def gpus(self) -> tuple[int, ...]:
        """All GPUs it runs on."""
        return slot_gpus(self.slot)


class NodeState(msgspec.Struct):
    """A node whose agent has reported."""

    id: str
    host: str = ""
    gpus: tuple[int, ...] = ()
    doorbell: str = ""
    heard_s: float = 0.0
    said_s: float = -1e9  # when its silence was last told
    greeted: bool = False


class Rented(msgspec.Struct, frozen=True):
    """What a node was rented as: ``count`` GPUs of a type. ``actual``: theirs, which may be one that stands in for it."""

    accelerator: str
    count: int
    actual: str


def split_worker_id(worker: str) -> tuple[str, str]:
    """(node, slot) of a worker id ``<node>.<slot>.<start>``."""
    node, _, rest = worker.partition(".")
    return node, rest.rpartition(".")[0]


class Roster:
    """Observed processes and wished slots."""

    def __init__(self, wanted: dict[Role, int]) -> None:
        self.wanted = dict(wanted)
        self.nodes: dict[str, NodeState] = {}
        self.workers: dict[str, WorkerState] = {}
        self._of_node: dict[str, dict[str, WorkerState]] = {}
        self.draining: dict[str, float] = {}  # worker → since when
        self.expected: set[str] = set()  # nodes an earlier head had, and that have not reported to this one
        self.plans: list[SlotPlan] = []
        self._roles: dict[tuple[str, str], Role] = {}  # of the plans, by node and slot
        self.reach: dict[tuple[str, str], float | None] = {}  # (who knocked, at whom) → ms; None: no answer
        self.shares: Shares = {}  # of those wanted, how many on GPUs of a type
        self.bundles: Bundles | None = None  # GPUs that hold several roles; None: any may be crowded
        self.widths: Widths = {}  # GPUs of each worker, of the roles that have several
        self.by_actual = False  # shares name the GPUs that are there, not those that were wished for
        self.rented: dict[str, Rented] = {}  # by node; none for ``infra: local``
        self.leaving: set[str] = set()  # nodes that are to be given back: no slots there
        self._generations: dict[tuple[str, str], int] = {}  # of a node's slot

    # --- observations -----------------------------------------------------------------------------------------

    def node_hello(self, hello: AgentHello, now: float) -> NodeState:
        """An agent reports its node."""
        node = self.nodes.setdefault(hello.node, NodeState(hello.node))
        node.host, node.gpus, node.heard_s, node.greeted = hello.host, tuple(g.index for g in hello.gpus), now, True
        node.doorbell = hello.doorbell
        self.expected.discard(hello.node)
        return node

    def reached(self, node: str, answer: Reached) -> None:
        """A node has knocked at another."""
        if node in self.nodes and answer.node in self.nodes:
            self.reach[node, answer.node] = answer.ms

    def vitals(self, node: str, vitals: WorkerVitals, now: float) -> WorkerState:
        """An agent reports a process that lives."""
        known = vitals.worker in self.workers
        worker = self.worker(vitals.worker, node)
        if not known:
            worker.heard_s = now
        worker.pid, worker.rss_bytes, worker.running = vitals.pid, vitals.rss_bytes, vitals.state == "running"
        return worker

    def worker(self, worker_id: str, node: str) -> WorkerState:
        """The worker's state, made when new."""
        known = self.workers.get(worker_id)
        if known is None:
            slot = split_worker_id(worker_id)[1]
            known = self.workers[worker_id] = WorkerState(worker_id, node, slot, self._roles.get((node, slot)))
            self._of_node.setdefault(node, {})[worker_id] = known
        return known

    def node_lost(self, node: str) -> list[str]:
        """A node is gone: its workers' ids, forgotten."""
        self.nodes.pop(node, None)
        self.reach = {pair: ms for pair, ms in self.reach.items() if node not in pair}
        self.expected.discard(node)
        gone = list(self._of_node.get(node, ()))
        for worker in gone:
            self.forget(worker)
        self._of_node.pop(node, None)
        return gone

    def forget(self, worker: str) -> None:
        """The process is gone."""
        known = self.workers.pop(worker, None)
        if known is not None:
            self._of_node[known.node].pop(worker, None)
        self.draining.pop(worker, None)

    def vanished(self, node: str, present: set[str], silent_since: float) -> list[str]:
        """Workers that the node's agent does not list and that have not been heard since: how they ended was not heard."""
        mine = self._of_node.get(node, {})
        return [w.id for w in mine.values() if w.id not in present and w.heard_s < silent_since]

    # --- wishes -----------------------------------------------------------------------------------------------

    def plan(self, tasks: Mapping[str, int]) -> list[SlotPlan]:
        """Where the wanted workers go, given the nodes that have reported. ``tasks``: worker → how many, if it takes any.

        Those there are stay where and what they are, as far as that goes.
        """
        nodes = sorted(self.nodes.values(), key=lambda n: (len(n.id), n.id))  # whoever was first to say hello
        there = {(w.node, w.slot): self._seat(w, tasks) for w in self.workers.values() if not w.doomed}
        coming = [Seat(plan) for plan in self.plans if (plan.node, plan.slot) not in there]
        rooms = [self._room(n) for n in nodes if n.greeted and n.id not in self.leaving]
        seats = by_worth([*there.values(), *coming])
        self.plans = seat_all(self.wanted, rooms, seats, self.shares, self.bundles, self.widths)
        self._roles = {(plan.node, plan.slot): plan.role for plan in self.plans}
        return self.plans

    def _seat(self, worker: WorkerState, tasks: Mapping[str, int]) -> Seat:
        plan = SlotPlan(worker.node, worker.slot, worker.role or UNKNOWN, worker.gpu)
        return Seat(plan, worker.id in tasks, tasks.get(worker.id, 0), worker.id in self.draining)

    def role_of(self, worker: WorkerState) -> Role | None:
        """What the plan has in this worker's slot; None: nobody."""
        return self._roles.get((worker.node, worker.slot))

    def _room(self, node: NodeState) -> NodeRoom:
        """A node on which no driver shows the GPUs it was rented with has places for as many workers, on its CPU."""
        rented = self.rented.get(node.id)
        if rented is None:
            return NodeRoom(node.id, node.gpus)
        kind = rented.actual if self.by_actual else rented.accelerator
        return NodeRoom(node.id, node.gpus or tuple(range(rented.count)), kind)

    def gpus_in_words(self, node: str) -> str:
        """What it computes on."""
        gpus, rented = self.nodes[node].gpus, self.rented.get(node)
        if gpus:
            return f"{len(gpus)} GPU(s)"
        return f"no NVIDIA device: its CPU stands in for {rented.actual}:{rented.count}" if rented else "no GPU"

    def devices(self, node: str, slot: str) -> tuple[int, ...]:
        """The GPUs that a worker in the slot computes on; none: the CPU."""
        known, gpus = self.nodes.get(node), slot_gpus(slot)
        return gpus if known is not None and set(gpus) <= set(known.gpus) else ()

    def wishes(self, node: str) -> tuple[WorkerWish, ...]:
        """The complete list for a node: what is planned and has its GPUs free, and what is still draining."""
        waiting = self._blocked(node)
        names = dict.fromkeys(p.slot for p in self.plans if p.node == node and p.slot not in waiting)
        names |= dict.fromkeys(w.slot for w in self.workers.values() if w.node == node and w.id in self.draining)
        return tuple(self._wish(node, slot) for slot in names)

    def _wish(self, node: str, slot: str) -> WorkerWish:
        gpus = self.devices(node, slot)
        return WorkerWish(slot, gpus[0] if gpus else None, self._generations.get((node, slot), 0), gpus[1:])

    def _blocked(self, node: str) -> dict[str, list[WorkerState]]:
        """Slots whose GPUs other workers have yet to leave, and these. Where either has several GPUs nobody begins beside who
        leaves: its memory is not free before."""
        mine = self._of_node.get(node, {}).values()
        planned = {p.slot: p.gpus for p in self.plans if p.node == node}
        filled = {w.slot for w in mine if not w.doomed}
        going = [w for w in mine if w.slot not in planned]
        found: dict[str, list[WorkerState]] = {}
        for slot, gpus in planned.items():
            before = [w for w in going if set(w.gpus) & set(gpus) and max(len(w.gpus), len(gpus)) > 1]
            if before and slot not in filled:
                found[slot] = before
        return found

    def doom(self, worker: WorkerState) -> None:
        """Have the worker's process ended, and replaced if its slot is (or will again be) wanted."""
        worker.doomed, worker.greeted = True, False
        self.draining.pop(worker.id, None)
        place = (worker.node, worker.slot)
        self._generations[place] = self._generations.get(place, 0) + 1

    def overdue(self, now: float, idle: Callable[[str], bool]) -> list[WorkerState]:
        """Workers that drained for too long. Sooner: who is ``idle`` on a GPU that another waits for, which may be the very one
        that should fetch what it holds; and who has no role, for nobody knows what it holds."""
        late = [self.workers[w] for w, since in self.draining.items() if now - since > YIELD_S]
        blocking = {w.id for node in {w.node for w in late} for some in self._blocked(node).values() for w in some}
        ended = {w.id for w in late if w.role is None or (w.id in blocking and idle(w.id))}
        return [w for w in late if w.id in ended or now - self.draining[w.id] > DRAIN_S]

    def all_greeted(self) -> bool:
        """Whether every process that the agents vouch for has said what it holds."""
        present = bool(self.workers) and not self.expected
        return present and all(w.greeted or not w.running for w in self.workers.values())

    def unfilled(self) -> list[SlotPlan]:
        """Places whose worker has not been heard of yet."""
        there = {(w.node, w.slot) for w in self.workers.values() if not w.doomed}
        return [plan for plan in self.plans if (plan.node, plan.slot) not in there]

    def accelerator(self, node: str) -> str:
        """The type of a node's GPUs, as prices and profiles name it; "" on this machine, where none was asked for."""
        rented = self.rented.get(node)
        return rented.actual if rented is not None else ""

    def in_role(self, role: Role) -> list[WorkerState]:
        """Workers that have the role or are to have it."""
        return [w for w in self.workers.values() if w.role == role]
