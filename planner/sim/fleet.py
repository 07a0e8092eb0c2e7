"""Nodes and workers of the simulated world: who loads, drains, switches, comes and goes."""

from collections import Counter
from typing import TYPE_CHECKING

from planner.domain import Role
from planner.run.allocate import trim
from planner.run.decisions import SetCounts
from planner.run.fleet import Bundle, NodeRoom, NodeWish, Seat, SlotPlan, by_worth, lay_out
from planner.run.observe import Lapse, NodeCount, Observation, RoleState, Room
from planner.sim.machines import SimNode, SimWorker
from planner.sim.report import Sample
from planner.sim.scenario import Scenario

if TYPE_CHECKING:
    from planner.sim.world import World


class Fleet:
    """Carries out SetCounts and WishNodes; says what there is."""

    def __init__(self, world: "World", first: SetCounts) -> None:
        self._world = world
        self.workers: dict[str, SimWorker] = {}
        self.nodes: dict[str, SimNode] = {}
        self._wanted, self._shares = dict(first.counts), _shares(first)
        self._bundles = _bundles(world.scenario, first)
        self._on_gpu: dict[tuple[str, int | None], list[SimWorker]] = {}
        self.wishes: tuple[NodeWish, ...] = world.scenario.nodes
        self._launch, self._loads = world.stream("launch"), world.stream("load")
        self._spot = world.stream("spot")
        self._ids = 0
        self._moved_s: float | None = None

    def begin(self) -> None:
        """What is there at the begin, warm."""
        for wish in self.wishes:
            for _ in range(wish.count):
                self._node_up(self._add(wish))
        self._lay_out(warm=True)

    # --- counts -----------------------------------------------------------------------------------------------

    def set_counts(self, decision: SetCounts) -> None:
        """Have these workers: switch, start, end."""
        self._wanted = dict(decision.counts)
        self._shares, self._bundles = _shares(decision), _bundles(self._world.scenario, decision)
        self._moved_s = self._world.now
        self._lay_out()

    def _lay_out(self, *, warm: bool = False) -> None:
        rooms = [
            NodeRoom(n.id, tuple(range(n.wish.offers[0].count)), n.wish.offers[0].accelerator)
            for n in self.nodes.values()
            if n.up and not n.leaving
        ]
        seats = [
            Seat(_as_wanted(w), w.serves, len(w.tasks) + (w.computing is not None), w.leaving)
            for w in self.workers.values()
        ]
        wanted = self._wanted
        if self._bundles is None:
            wanted = trim(wanted, sum(len(room.gpus) for room in rooms))
        laid = lay_out(wanted, rooms, by_worth(seats), self._shares or None, self._bundles)
        plans = {(p.node, p.slot): p for p in laid}
        for worker in list(self.workers.values()):
            plan = plans.pop((worker.plan.node, worker.plan.slot), None)
            if plan is None:
                self._leave(worker)
            else:
                worker.leaving = False
                worker.plan = plan
                self._become(worker, plan.role)
        accelerators = {room.node: room.accelerator for room in rooms}
        for plan in plans.values():
            worker = SimWorker(f"{plan.node}.{plan.slot}", plan, accelerators[plan.node], plan.role)
            self.workers[worker.id] = worker
            self._on_gpu.setdefault((plan.node, plan.gpu), []).append(worker)
            if warm:
                self._ready(worker)
            else:
                self._load(worker)

    def _become(self, worker: SimWorker, role: Role) -> None:
        if role == worker.role:
            if worker.ready and worker.becomes is not None:
                worker.becomes = None
                self._world.ledger.worker_ready(worker.id, role, self._world.scenario.prefetch, self._world.now)
            return
        if not worker.ready:
            worker.role = role
            self._load(worker)
        elif worker.becomes is None:
            worker.becomes = role
            self._drain(worker)
        else:
            worker.becomes = role

    def _leave(self, worker: SimWorker) -> None:
        if worker.leaving:
            return
        worker.leaving = True
        if worker.ready:
            self._drain(worker)
        else:
            self._gone(worker)

    def _drain(self, worker: SimWorker) -> None:
        worker.ordered_s = self._world.now
        self._world.ledger.worker_draining(worker.id)
        back, worker.tasks = worker.tasks, []
        for task in back:
            self._world.ledger.returned(worker.id, task.ref)
        self.drained(worker)

    def drained(self, worker: SimWorker) -> None:
        """A worker that drains may have finished: load what it is to become, or go."""
        if worker.computing is not None or worker.gone or not worker.ready:
            return
        if worker.leaving:
            self.left(worker.id)
        elif worker.becomes is not None:
            now = self._world.now
            self._world.observer.lapse(Lapse("drain", now - worker.ordered_s, worker.role, worker.accelerator))
            worker.role, worker.becomes, worker.ready = worker.becomes, None, False
            self._load(worker)

    def left(self, worker_id: str) -> None:
        """A worker that goes may do so once nobody needs what it holds."""
        worker = self.workers.get(worker_id)
        if worker is None or not worker.leaving or worker.computing is not None:
            return
        known = self._world.ledger.workers.get(worker_id)
        if known is None or not known.outputs:
            self._gone(worker)

    def _load(self, worker: SimWorker) -> None:
        worker.loading += 1
        worker.ready = False
        scenario = self._world.scenario
        seconds = self._loads.lognormal(scenario.load_s.get(worker.role, 0.0), scenario.noise.load_sigma)
        self._world.after(seconds, self._loaded, worker, worker.loading, seconds)

    def _loaded(self, worker: SimWorker, loading: int, seconds: float) -> None:
        if worker.gone or worker.loading != loading:
            return
        self._world.observer.lapse(Lapse("load", seconds, worker.role, worker.accelerator))
        self._ready(worker)
        if self._moved_s is not None and not any(w.becomes or not w.ready for w in self.workers.values()):
            self._world.rebalances_s.append(self._world.now - self._moved_s)
            self._moved_s = None

    def _ready(self, worker: SimWorker) -> None:
        worker.ready, worker.fresh = True, True
        self._world.ledger.worker_ready(worker.id, worker.role, self._world.scenario.prefetch, self._world.now)

    def beside(self, worker: SimWorker) -> list[SimWorker]:
        """The others on its GPU."""
        return [one for one in self._on_gpu[worker.plan.node, worker.plan.gpu] if one is not worker]

    def in_turn(self, worker: SimWorker) -> list[SimWorker]:
        """Who may compute next on its GPU: those who have waited longest first, itself last."""
        line = self._on_gpu[worker.plan.node, worker.plan.gpu]
        line.remove(worker)
        line.append(worker)
        return list(line)

    def _forget(self, worker: SimWorker) -> None:
        worker.gone = True
        del self.workers[worker.id]
        self._on_gpu[worker.plan.node, worker.plan.gpu].remove(worker)

    def _gone(self, worker: SimWorker) -> None:
        self._forget(worker)
        self._world.ledger.worker_lost(worker.id, "ended", ())
        node = self.nodes.get(worker.plan.node)
        if node is not None and node.leaving and not any(w.plan.node == node.id for w in self.workers.values()):
            self._release(node)

    # --- nodes ------------------------------------------------------------------------------------------------

    def wish(self, wishes: tuple[NodeWish, ...]) -> None:
        """Launch what is missing, drain what is not wished for."""
        self.wishes = wishes
        wanted = {wish.key: wish for wish in wishes}
        for key in sorted({n.wish.key for n in self.nodes.values()} | set(wanted)):
            mine = [n for n in self.nodes.values() if n.wish.key == key and n.gone_s is None]
            count = wanted[key].count if key in wanted else 0
            staying = [n for n in mine if not n.leaving]
            for node in staying[count:][::-1]:
                self._send_away(node)
            for _ in range(count - len(staying)):
                self._launch_one(wanted[key])
        self._lay_out()

    def _add(self, wish: NodeWish) -> SimNode:
        self._ids += 1
        node = SimNode(f"n{self._ids}", wish, self._world.now)
        self.nodes[node.id] = node
        return node

    def _launch_one(self, wish: NodeWish) -> None:
        node = self._add(wish)
        seconds = self._launch.lognormal(wish.offers[0].launch_s, self._world.scenario.noise.launch_sigma)
        self._world.after(seconds, self._launched, node, seconds)

    def _launched(self, node: SimNode, seconds: float) -> None:
        if node.gone_s is not None:
            return
        self._world.observer.lapse(Lapse("launch", seconds, offer=node.wish.key))
        self._node_up(node)
        self._lay_out()

    def _node_up(self, node: SimNode) -> None:
        node.up = True
        rate = self._world.scenario.noise.preempt_per_h
        if rate and node.wish.offers[0].spot:
            self._world.after(self._spot.exponential(3600 / rate), self._preempted, node)

    def _preempted(self, node: SimNode) -> None:
        if node.gone_s is not None:
            return
        for worker in [w for w in self.workers.values() if w.plan.node == node.id]:
            self._forget(worker)
            charge = (worker.computing.ref,) if worker.computing is not None else ()
            self._world.ledger.worker_lost(worker.id, "preempted", charge)
        self._release(node)
        if not node.leaving:
            self._launch_one(node.wish)
        self._lay_out()

    def _send_away(self, node: SimNode) -> None:
        node.leaving = True
        if not any(w.plan.node == node.id for w in self.workers.values()):
            self._release(node)

    def _release(self, node: SimNode) -> None:
        node.gone_s = self._world.now
        node.up = False

    # --- what there is ----------------------------------------------------------------------------------------

    def usd_until(self, end_s: float) -> float:
        """Spent since the begin."""
        return sum(
            n.usd_per_hour * ((end_s if n.gone_s is None else n.gone_s) - n.launched_s) / 3600
            for n in self.nodes.values()
        )

    def observe(self) -> Observation:
        """What the policy is shown."""
        ready: Counter[Role] = Counter()
        computing: Counter[Role] = Counter()
        coming: Counter[Role] = Counter()
        draining: Counter[Role] = Counter()
        running: Counter[Role] = Counter()
        for worker in self.workers.values():
            running[worker.role] += len(worker.tasks) + (worker.computing is not None)
            if worker.serves:
                ready[worker.role] += 1
                computing[worker.role] += worker.computing is not None
            elif worker.leaving:
                draining[worker.role] += 1
            elif worker.becomes is not None:
                draining[worker.role] += 1
                coming[worker.becomes] += 1
            else:
                coming[worker.role] += 1
        ledger = self._world.ledger
        states = tuple(
            RoleState(
                role, self._wanted.get(role, 0), ready[role], computing[role], coming[role], draining[role],
                ledger.queued(role), running[role],
            )
            for role in self._world.scenario.roles
        )  # fmt: skip
        spend = (self._usd_per_hour(), self.usd_until(self._world.now))
        return self._world.observer.take(states, self._rooms(), self._node_counts(), spend=spend)

    def _usd_per_hour(self) -> float:
        return sum(n.usd_per_hour for n in self.nodes.values() if n.gone_s is None)

    def _rooms(self) -> tuple[Room, ...]:
        up: Counter[str] = Counter()
        coming: Counter[str] = Counter()
        for node in self.nodes.values():
            if node.gone_s is None and not node.leaving:
                offer = node.wish.offers[0]
                (up if node.up else coming)[offer.accelerator] += offer.count
        return tuple(Room(name, up[name], coming[name]) for name in sorted(set(up) | set(coming)))

    def _node_counts(self) -> tuple[NodeCount, ...]:
        wished = {wish.key: wish for wish in self.wishes}
        for node in self.nodes.values():
            if node.gone_s is None:
                wished.setdefault(node.wish.key, node.wish)
        counts = {wish.key: wish.count for wish in self.wishes}
        found = []
        for key, wish in wished.items():
            mine = [n for n in self.nodes.values() if n.wish.key == key and n.gone_s is None]
            up = sum(n.up and not n.leaving for n in mine)
            leaving = sum(n.leaving for n in mine)
            coming = len(mine) - up - leaving
            found.append(NodeCount(key, wish.offers[0], counts.get(key, 0), up, coming, leaving, wish.offers))
        return tuple(found)

    def sample(self, in_system: int) -> Sample:
        """A point of the timeline."""
        ready = Counter(w.role for w in self.workers.values() if w.serves)
        moving = sum(not w.serves for w in self.workers.values())
        running = sum(w.computing is not None for w in self.workers.values())
        roles = self._world.scenario.roles
        return Sample(
            self._world.now, in_system - running, moving, self._usd_per_hour(), tuple(ready[role] for role in roles)
        )


def _shares(decision: SetCounts) -> dict[tuple[Role, str], int]:
    return {(role, name): n for name, roles in decision.by_gpu.items() for role, n in roles.items()}


def _bundles(scenario: Scenario, decision: SetCounts) -> dict[tuple[Bundle, str], int] | None:
    """GPUs that hold several roles; None: any may be crowded."""
    if scenario.policy.fits is None:
        return None
    return {(bundle, name): n for name, bundles in decision.bundles.items() for bundle, n in bundles.items()}


def _as_wanted(worker: SimWorker) -> SlotPlan:
    """The seat with the role it has or is to have."""
    plan = worker.plan
    role = worker.becomes or worker.role
    return plan if plan.role == role else SlotPlan(plan.node, plan.slot, role, plan.gpu)
