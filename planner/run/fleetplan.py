"""Which nodes to have: minutes away and paid by the hour, so decided apart from who works on them.

More are asked for as soon as the work does not fit what is there and coming; fewer only when the most that was needed over
the whole patience fits less. What to rent is the planner's answer to a Solve. New nodes come up before old ones go.
"""

from collections import deque
from typing import Final

from planner.domain import RequestClass, Shape, Workload
from planner.plan.result import Plan
from planner.run.config import PolicyConfig
from planner.run.decisions import Decision, Measured, Reason, Solve, WishNodes
from planner.run.fleet import NodeWish
from planner.run.observe import NodeCount, Observation, Planned
from planner.run.rent import dearest, key_of

# Times the wait for a new node that a smaller need must hold. Once would be the break-even of ski rental (A. Karlin,
# M. Manasse, L. Rudolph, D. Sleator, "Competitive snoopy caching", Algorithmica 3, 1988), in money alone; the other is for
# whoever would have to wait for a node that was given up too early.
PATIENCE: Final = 2.0
ENOUGH: Final = 1.05  # cover below which what is there does not do
SPARE: Final = 0.7  # share of the load now planned for that makes asking again worth while
SOLVE_S: Final = 120.0  # an answer that takes longer is not waited for
MOST_QUIET_S: Final = 3600.0  # after answers that what is there does

Kind = tuple[str, Shape]


class NodePlanner:
    """Keeps the question that is out, and what was wished for."""

    def __init__(self, config: PolicyConfig) -> None:
        self._config = config
        self._asked: int | None = None
        self._asked_s = 0.0
        self._asked_load = 0.0
        self._why = Reason("load", "")
        self._ids = 0
        self._quiet_until_s = 0.0
        self._served: float | None = None  # load that the present wish is for, requests a second weighted by work
        self._loads: deque[tuple[float, float]] = deque(maxlen=4096)
        self._asked_for: dict[Kind, float] = {}
        # For what, how much work that is, on what, until when.
        self._enough: tuple[dict[Kind, float], float, dict[str, int], float] | None = None
        self._enough_s = 0.0
        self._target: tuple[NodeWish, ...] | None = None
        self._coming: Plan | None = None  # the plan whose nodes are on their way
        self.plan: Plan | None = None  # what the nodes that are there were last planned for

    def step(
        self,
        seen: Observation,
        classes: tuple[RequestClass, ...],
        load: float,
        fits: float,
        now: float,
        ready_s: float,
        measured: tuple[Measured, ...] = (),
    ) -> list[Decision]:
        """``load``: busy workers that ``classes`` make; ``fits``: cover of what is there; ``ready_s``: to launch and load."""
        self._loads.append((now, load))
        out: list[Decision] = []
        if seen.planned is not None and seen.planned.id == self._asked:
            self._asked = None
            out += self._answered(seen.planned, seen.nodes, now, ready_s)
        elif self._asked is not None and now - self._asked_s > SOLVE_S:
            self._asked = None
        out += self._replaced(seen.nodes)
        if self._asked is None and not out and now >= self._quiet_until_s and classes:
            reason = self._reason(load, fits, now, seen.usd_total, PATIENCE * ready_s)
            if reason is not None and not self._answered_already(reason, classes, seen.nodes, now):
                self._ids += 1
                self._asked_for = _rates(classes)
                self._asked, self._asked_s, self._asked_load, self._why = self._ids, now, load, reason
                out.append(Solve(self._ids, Workload(classes), reason, measured))
        return out

    def _reason(self, load: float, fits: float, now: float, spent: float, patience_s: float) -> Reason | None:
        total = self._config.max_usd_total
        if fits < ENOUGH and (total is None or spent < total):
            much = (
                f"the work needs {1 / fits:.2f} times what is there" if fits > 0.01 else "nothing is there for the work"
            )
            return Reason("load", much, {"cover": fits, "load": load})
        recent = [value for at, value in self._loads if now - at <= patience_s]
        long_enough = now - self._loads[0][0] >= patience_s
        most = max(recent, default=load)
        if self._served is None:
            self._served = load
        if long_enough and most < SPARE * self._served:
            text = f"for {patience_s:.0f} s at most {most / self._served:.0%} of what the nodes are for was needed"
            return Reason("load", text, {"most_load": most, "planned_load": self._served})
        return None

    def _answered_already(
        self, why: Reason, classes: tuple[RequestClass, ...], nodes: tuple[NodeCount, ...], now: float
    ) -> bool:
        """Whether the planner has said lately that what is there does for no less than this.

        Its estimate of p95 is closer than the loop's own, which errs on the safe side and would ask again and again. More
        work is more requests of a kind, or measured seconds that grew.
        """
        if self._enough is None or "cover" not in why.numbers:
            return False
        rates, load, there, until_s = self._enough
        up = {one.key: one.up for one in nodes}
        lost = any(up.get(key, 0) < count for key, count in there.items())
        more = any(rate > ENOUGH * rates.get(kind, 0.0) for kind, rate in _rates(classes).items())
        more = more or why.numbers["load"] > ENOUGH * load
        return not lost and not more and now < until_s

    def _does(self, nodes: tuple[NodeCount, ...], now: float, ready_s: float) -> None:
        """The answer was: no more than what is there. Each time in a row it is believed for twice as long."""
        self._enough_s = min(max(2 * self._enough_s, ready_s), MOST_QUIET_S)
        there = {one.key: one.up for one in nodes}
        self._enough = (self._asked_for, self._asked_load, there, now + self._enough_s)

    def _answered(self, planned: Planned, nodes: tuple[NodeCount, ...], now: float, ready_s: float) -> list[Decision]:
        self._quiet_until_s = now + ready_s  # observe only while what was asked for is on its way
        if not isinstance(planned.plan, Plan):
            return []
        made = planned.wishes or tuple(NodeWish(key_of(n.offer), (n.offer,), n.nodes) for n in planned.plan.nodes)
        wanted = {wish.key: wish for wish in made}
        present = {one.key: one.wished for one in nodes if one.wished}
        if planned.share < 1 and all(wish.count <= present.get(key, 0) for key, wish in wanted.items()):
            self._does(nodes, now, ready_s)
            return []  # what is there does as much
        same = present == {key: wish.count for key, wish in wanted.items()}
        up = {one.key: one.up for one in nodes}
        there = all(wish.count <= up.get(key, 0) for key, wish in wanted.items())
        if there and not same and "cover" in self._why.numbers:
            return []  # asked for more, so no reason for fewer: what is wished for beside these was lost, and is being replaced
        self._served = self._asked_load * planned.share
        if same:
            self.plan, self._coming = planned.plan, None
            self._does(nodes, now, ready_s)
            return []
        self._enough, self._enough_s = None, 0.0
        usd = planned.plan.usd_per_hour
        self._target, self._coming = tuple(wanted.values()), planned.plan
        both = dict(wanted)
        for one in nodes:
            if one.wished > (wanted[one.key].count if one.key in wanted else 0):
                both[one.key] = one.wish(one.wished)
        part = (
            f", {planned.share:.0%} of what the work needs: there is no more for the money" if planned.share < 1 else ""
        )
        what = f"{sum(w.count for w in wanted.values())} nodes at ${usd:.2f}/h{part}"
        why = Reason("load", f"{self._why.text}: {what}", self._why.numbers | {"usd_per_hour": usd})
        spend = sum(wish.count * dearest(wish.offers) for wish in both.values())
        cap = self._config.max_usd_per_hour
        if there or (cap is not None and spend > cap):  # nothing to wait for, or no money to have both
            both = wanted
            self._reached()
        elif {key: wish.count for key, wish in both.items()} == present:
            return []  # all of it is on its way; what is too much goes when it has come
        return [WishNodes(tuple(both.values()), why)]

    def _reached(self) -> None:
        """The nodes are those of the plan."""
        self.plan, self._coming, self._target = self._coming, None, None

    def _replaced(self, nodes: tuple[NodeCount, ...]) -> list[Decision]:
        """The new nodes are up: let the old ones go."""
        if self._target is None:
            return []
        up = {one.key: one.up for one in nodes}
        if any(up.get(wish.key, 0) < wish.count for wish in self._target):
            return []
        target = self._target
        self._reached()
        if {w.key: w.count for w in target} == {one.key: one.wished for one in nodes if one.wished}:
            return []
        return [WishNodes(target, Reason("load", "the nodes that replace them are up"))]


def _rates(classes: tuple[RequestClass, ...]) -> dict[Kind, float]:
    """Requests a second by model and shape."""
    return {(one.model, one.shape): one.rate_per_s for one in classes}
