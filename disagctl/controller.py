"""The control loop: observe → decide → act. The policy decides (:mod:`planner.run.policy`); this carries it out, and says why.

Counts are acted on by the engine (workers switch, start or drain), nodes by whoever keeps them, a question to the planner by
the solver's process; its answer is met at a later tick as an observation. What was learnt is stored now and then.
"""

import asyncio
import base64
import binascii
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

import msgspec

from disagctl.errors import DisagctlError
from disagctl.load_watch import LoadWatch
from disagctl.placing import Placing
from disagctl.views import LoopView
from planner.domain import Role
from planner.run.decisions import Decision, Reason, SetCounts, Solve, WishNodes
from planner.run.effects import LoadRole
from planner.run.fleet import NodeWish
from planner.run.observe import NodeCount, Planned, Room
from planner.run.policy import Policy
from planner.run.seating import Seating

log = logging.getLogger(__name__)

MEMORY_EVERY_S: Final = 60.0

Say = Callable[[str, str], None]
Save = Callable[[str, str], Awaitable[Any]]
Ask = Callable[[Solve], Planned]  # blocks until the solver has answered


class NodeKeeper(Protocol):
    """Who has the machines."""

    async def wish(self, wishes: Sequence[NodeWish], why: str) -> None:
        """Have these nodes: launch what is missing, drain and release the rest."""

    def rooms(self) -> tuple[Room, ...]:
        """Workers that the nodes hold, by type of GPU."""

    def counts(self) -> tuple[NodeCount, ...]:
        """Nodes of each wish."""

    def spend(self) -> tuple[float, float]:
        """(dollars an hour now, dollars since the service was created)."""


class OneMachine:
    """``infra: local``: a fixed number of places and nothing to rent."""

    def __init__(self, places: int | None) -> None:
        self._places = places

    async def wish(self, wishes: Sequence[NodeWish], why: str) -> None:
        """There is nothing to launch."""

    def rooms(self) -> tuple[Room, ...]:
        """This machine's."""
        return (Room("", self._places),) if self._places else ()

    def counts(self) -> tuple[NodeCount, ...]:
        """None are wished for."""
        return ()

    def spend(self) -> tuple[float, float]:
        """It costs nothing."""
        return 0.0, 0.0


class Controller:
    """One service's loop. ``ask``: the planner, about another load; None: nothing can be rented."""

    def __init__(
        self, watch: LoadWatch, policy: Policy, nodes: NodeKeeper, say: Say, save: Save, ask: Ask | None = None
    ) -> None:
        self.watch, self.policy, self.nodes = watch, policy, nodes
        self.pins: dict[Role, int] = {}
        self.plan = ""  # names what the service was rented by
        self.decided: Counter[str] = Counter()
        self.last: Reason | None = None
        self._engine = watch.engine
        self.placing = Placing(watch, policy, lambda: self.pins)
        self._say, self._save, self._ask = say, save, ask
        self._tasks: set[asyncio.Task[None]] = set()
        self._solving = False
        self._tick_s = 0.0
        self._spent_s = 0.0
        self._begun_s = self._engine.clock()
        self._stored_s = self._begun_s

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                self.tick()
                await self._remember()
            except Exception:  # boundary: a defect in one decision must not end the service
                log.exception("a tick of the control loop failed")
            await asyncio.sleep(self.policy.config.interval_s)

    def tick(self) -> None:
        """Look once, and do what the policy says."""
        begin, now = time.perf_counter(), self._engine.clock()
        roles = self.watch.roles()
        self.watch.sample(roles, now)
        seen = self.watch.observer.take(roles, self._rooms(), self.nodes.counts(), self.pins, self.nodes.spend())
        for decision in self.policy.decide(seen, now):
            self._perform(decision)
        self._placed(self.placing.withdraw(now))
        self._tick_s = time.perf_counter() - begin
        self._spent_s += self._tick_s

    def view(self) -> LoopView:
        """For status and metrics."""
        now = self._engine.clock()
        believed = self.policy.view(now)
        return LoopView(
            mode=self.policy.config.mode,
            pinned={str(role): count for role, count in self.pins.items()},
            arrivals_per_min={model: 60.0 * rate for model, rate in believed.rates.items()},
            mix={model: {str(shape): share for shape, share in mix.items()} for model, mix in believed.mix.items()},
            corrections=dict(believed.corrections),
            cooldown_s=believed.cooldown_s,
            decisions=dict(self.decided),
            why=self.last.text if self.last else "",
            switches=self.watch.switches,
            tick_ms=1000 * self._tick_s,
            core_share=self._spent_s / max(now - self._begun_s, 1.0),
            seconds={where: {str(shape): s for shape, s in each.items()} for where, each in believed.seconds.items()},
            delays=believed.delays,
        )

    async def close(self) -> None:
        """Store what was learnt."""
        self._stored_s = -math.inf
        await self._remember()

    def _rooms(self) -> tuple[Room, ...]:
        """Where nothing can be rented, whoever pins more than there was room for gets the room."""
        rooms = self.nodes.rooms()
        least = sum(self.pins.get(bound.role, bound.least) for bound in self.policy.config.roles)
        short = least - sum(room.up for room in rooms)
        if short > 0 and rooms and not self.policy.config.elastic:
            return (msgspec.structs.replace(rooms[0], up=rooms[0].up + short), *rooms[1:])
        return rooms

    def ask(self, asked: LoadRole) -> None:
        """Carry out what a dispatch policy orders, if it may be: soon, for the engine is in the midst of its effects."""
        asyncio.get_running_loop().call_soon(self._place, asked)

    def _place(self, asked: LoadRole) -> None:
        self._placed(self.placing.grant(asked, self._engine.clock()))

    def _placed(self, done: tuple[str, SetCounts] | None) -> None:
        if done is not None:
            told, decision = done
            self._say("placement", told)
            self._perform(decision)

    # --- acting -----------------------------------------------------------------------------------------------

    def _perform(self, decision: Decision) -> None:
        self.decided[decision.why.code] += 1
        self.last = decision.why
        match decision:
            case SetCounts():
                self._set_counts(decision)
            case Solve():
                if self._ask is not None and not self._solving:
                    self._say("plan", f"the planner is asked: {told(decision.why)}")
                    self._solving = True
                    self._spawn(self._solve(decision, self._ask))
            case WishNodes():
                wished = ", ".join(f"{wish.count} of {wish.key}" for wish in decision.wishes) or "none"
                self._say("nodes", f"{wished}: {told(decision.why)}")
                self._spawn(self.nodes.wish(decision.wishes, decision.why.text))

    def _set_counts(self, decision: SetCounts) -> None:
        roster = self._engine.roster
        before, counts = roster.wanted, {**roster.wanted, **decision.counts}
        exact = self.policy.config.fits is not None
        if not exact:
            counts |= self.pins
        shares = {(role, gpu): n for gpu, roles in decision.by_gpu.items() for role, n in roles.items() if n}
        bundles = {(roles, gpu): n for gpu, some in decision.bundles.items() for roles, n in some.items() if n}
        if counts == before and shares == roster.shares and bundles == (roster.bundles or {}):
            return
        one_model = len({role.model for role in counts}) == 1
        names = {role: role.stage if one_model else str(role) for role in counts}
        moves = [f"{names[role]} {before.get(role, 0)}→{n}" for role, n in counts.items() if n != before.get(role, 0)]
        self._say("scale", f"{', '.join(moves) or 'places changed'}: {told(decision.why)}")
        roster.wanted, roster.shares, roster.bundles = counts, shares, bundles if exact else None
        self._engine.rewish()
        self._engine.act()
        self._spawn(self._store("counts", encode_counts(counts)))
        if exact:
            self._spawn(self._store("seating", encode_seating(decision.seating, self.plan)))

    async def _solve(self, question: Solve, ask: Ask) -> None:
        """Ask the planner, off the event loop."""
        try:
            answer = await asyncio.to_thread(ask, question)
        except DisagctlError as err:
            answer = Planned(question.id, error=str(err))
        finally:
            self._solving = False
        if answer.error:
            self._say("plan_failed", answer.error)
        self.watch.observer.planned(answer)

    async def _remember(self) -> None:
        now = self._engine.clock()
        if now - self._stored_s >= MEMORY_EVERY_S:
            self._stored_s = now
            await self._store("policy", base64.b64encode(self.policy.memory()).decode())

    async def _store(self, key: str, value: str) -> None:
        try:
            await self._save(key, value)
        except Exception as err:  # noqa: BLE001  # boundary: a full disk only costs what was learnt
            log.warning("%s is not stored: %s", key, err)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def told(why: Reason) -> str:
    """A reason with its numbers, for the feed."""
    numbers = ", ".join(f"{name} {value:.3g}" for name, value in why.numbers.items())
    return f"{why.text} ({numbers})" if numbers else why.text


def memory_of(stored: str) -> bytes | None:
    """The policy's memory as it was stored; None when there is none."""
    try:
        return base64.b64decode(stored, validate=True) or None
    except (binascii.Error, ValueError):
        return None


def encode_counts(counts: dict[Role, int]) -> str:
    """Worker counts as text."""
    return msgspec.json.encode([(r.model, r.stage, n) for r, n in counts.items()]).decode()


def decode_counts(text: str) -> dict[Role, int]:
    """The inverse of :func:`encode_counts`."""
    return {Role(m, s): n for m, s, n in msgspec.json.decode(text, type=list[tuple[str, str, int]])} if text else {}


Seats = list[tuple[str, list[Role], int]]


def encode_seating(seating: Seating, plan: str) -> str:
    """What each GPU is for as text, under the name of the plan that the service was rented by."""
    seats: Seats = [(name, [role], n) for name, roles in seating.alone.items() for role, n in roles.items() if n]
    seats += [(name, list(bundle), n) for name, some in seating.shared.items() for bundle, n in some.items() if n]
    return msgspec.json.encode((plan, seats)).decode()


def decode_seating(text: str, plan: str) -> Seating | None:
    """The inverse of :func:`encode_seating`; None when there is none of this plan."""
    if not text:
        return None
    name, seats = msgspec.json.decode(text, type=tuple[str, Seats])
    if name != plan:
        return None
    alone: dict[str, dict[Role, int]] = {}
    shared: dict[str, dict[tuple[Role, ...], int]] = {}
    for gpu, roles, count in seats:
        if len(roles) == 1:
            alone.setdefault(gpu, {})[roles[0]] = count
        else:
            shared.setdefault(gpu, {})[tuple(roles)] = count
    return Seating(alone, shared)
