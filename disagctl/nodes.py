"""The service's machines: performs what :mod:`planner.run.nodes` decides, enrols agents, keeps every machine's row.

A row is written before its machine is asked for and stays until the provider has twice listed the machine gone, so whatever
dies between two steps, the next head finds the machine by its row or by its tags.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from disagctl import clock, keys
from disagctl.engine import Engine
from disagctl.errors import DisagctlError, OverBudgetError
from disagctl.events import EventLog
from disagctl.hub import Hub
from disagctl.node_book import NodeBook, Recipe, failure_of
from disagctl.provision.base import NodeHandle, NodeRequest, Provisioner, nothing_left
from disagctl.store import Store, StoreFull, reserve_node, set_meta
from disagctl.store.rows import NodeRow
from disagctl.views import TroubleView
from planner.run import nodes as decide
from planner.run.fleet import NodeWish
from stages.boot import Enrolled
from stages.enrol import is_public_key
from stages.protocol import Shutdown
from stages.transport.data_server import DataServer

log = logging.getLogger(__name__)

MAX_CALLS: Final = 16  # to the provider at a time
CONFIRM_S: Final = 300.0  # at the end, for the provider's list to become empty
LISTING: Final = "list"  # the task that asks the provider; no node is called so
WISHES: Final = "wishes"  # key in the store's meta table


class Wished(msgspec.Struct, frozen=True):
    """What was wished for under a plan; another plan begins anew."""

    plan: str
    wishes: tuple[NodeWish, ...]
    parts: dict[str, dict[str, float]] = {}  # as Recipe has it


class Nodes:
    """All machines of one service. Lives on the event loop; ``reconcile`` is called by one loop only."""

    def __init__(
        self, store: Store, engine: Engine, events: EventLog, provisioner: Provisioner, recipe: Recipe,
        hub: Hub, data: DataServer, endpoints: Enrolled,
    ) -> None:  # fmt: skip
        self._store, self._engine, self._events = store, engine, events
        self._provisioner, self._recipe = provisioner, recipe
        self._hub, self._data, self._endpoints = hub, data, endpoints
        self.sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        self.book = NodeBook(store, engine, recipe)
        kept = store.read("SELECT value FROM meta WHERE key=?", (WISHES,))
        wished = msgspec.json.decode(kept[0][0], type=Wished) if kept else None
        self._wishes = recipe.wishes
        if wished is not None and wished.plan == recipe.plan:
            self._wishes = wished.wishes
            self.book.parts |= wished.parts
        self.troubles: dict[str, decide.Trouble] = {}
        self.failures: dict[str, TroubleView] = {}  # by wish: the last launch that came to nothing
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by node: the call under way
        self._announced = {row.id for row in self.open if row.state not in {"requested", "launching"}}
        self._list_due_s = 0.0
        self._ending = False
        self._spent = False
        self.refresh_keys()

    @property
    def open(self) -> list[NodeRow]:
        """Machines that may exist."""
        return self.book.open

    @property
    def wishes(self) -> tuple[NodeWish, ...]:
        """What is wished for now: nothing any more once all the money is spent."""
        return () if self._ending or self._spent else self._wishes

    @property
    def _enough(self) -> int:
        """How often a machine has to be listed gone: one time where the list cannot lag."""
        return decide.CONFIRMATIONS if self._provisioner.lag_s else 1

    async def wish(self, wishes: Sequence[NodeWish], why: str) -> None:
        """From now on these machines, and no others. Whatever was given up is tried again. Raises StoreFull."""
        wished = Wished(self._recipe.plan, tuple(wishes), self.book.parts)
        await self._store.write(set_meta(WISHES, msgspec.json.encode(wished).decode()))
        self._wishes = tuple(wishes)
        self.troubles.clear()
        log.info("wished for: %s: %s", ", ".join(f"{wish.count} of {wish.key}" for wish in wishes) or "nothing", why)

    async def reconcile(self) -> None:
        """Look, decide, act. Calls to the provider go on after it returns."""
        if self._ending:
            return
        now = self._engine.clock()
        self._watch_money()
        if now >= self._list_due_s and LISTING not in self._tasks:  # a provider may think for long: decide meanwhile
            self._list_due_s = now + self._provisioner.period_s
            self._begin(LISTING, self._look())
        machines = self.book.machines(now, set(self._tasks))
        for action in decide.reconcile(self.wishes, machines, self.troubles, now, self._provisioner.lag_s):
            await self._perform(action, now)

    async def admit(self, token: bytes, node: bytes, key: bytes) -> Enrolled | None:
        """Enrolment: a token once, for the node it was made for. Repeating it with the same key is a lost answer."""
        row = self.book.rows.get(node.decode("ascii", "replace"))
        if row is None or row.state not in {"requested", "launching", "up", "draining"} or not is_public_key(key):
            return None
        if not keys.same(keys.hashed(token.decode("ascii", "replace")), row.token_hash):
            return None
        public = key.decode("ascii")
        if row.public_key not in (None, public):
            self._events.add("refused", f"{row.id}: a second enrolment with another key")
            return None
        before = row.state
        row.public_key = public
        if row.state != "draining":
            self.book.enter(row, "up")
        if not await self.book.save(row):
            row.public_key, row.state = None, before
            return None
        self.troubles.pop(row.wish, None)
        self.failures.pop(row.wish, None)
        self.refresh_keys()
        return msgspec.structs.replace(self._endpoints, node=row.id)

    def refresh_keys(self) -> None:
        """Tell everybody who may talk to whom: machines that are given up may not."""
        allowed = {r.public_key: r.id for r in self.open if r.public_key and r.state not in {"lost", "releasing"}}
        self._hub.allow(allowed)
        self._data.set_peers(allowed)
        self._engine.set_peers(tuple(allowed))

    async def end(self) -> list[str]:
        """End every machine; returns those that the provider still has, or may have, with their prices."""
        self._ending = True
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for row in self.open:
            self._let_go(row)
        deadline = self._engine.clock() + CONFIRM_S
        due = self.open
        while due or (self.open and self._engine.clock() < deadline):
            await asyncio.gather(*(self._release(row) for row in due))
            try:
                await self._look()
            except DisagctlError as err:
                log.error("the provider cannot be asked: %s", err)
                break
            for row in [r for r in self.open if self.book.confirmed.get(r.id, 0) >= self._enough]:
                await self._close(row)
            if self.open:
                await self.sleep(self._provisioner.period_s)
            now = self._engine.clock()
            due = [] if now >= deadline else [row for row in self.open if self.book.release_due(row, now)]
        return [f"{row.id} ({row.offer}, ${row.usd_per_hour:.2f}/h): {row.why or row.state}" for row in self.open]

    # --- looking ----------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        rows = [row for row in self.open if row.id not in self._tasks]
        found = await self._provisioner.list([self.book.handle(row) for row in rows])
        for row, handle in zip(rows, found, strict=False):
            if row.id not in self._tasks and row.state != "gone":
                await self._take(row, handle)
        for stray in found[len(rows) :]:
            await self._stray(stray)

    async def _take(self, row: NodeRow, handle: NodeHandle) -> None:
        """One machine's present state, as its provider tells it."""
        news = self.book.told(row, handle)
        if "up" in {handle.state, row.state} and handle.offer is not None and row.id not in self._announced:
            self._announced.add(row.id)
            self._say_up(row, handle)
        if handle.state == "up" and handle.pid is None and row.state in {"requested", "launching"}:
            self.book.enter(row, "up")
            news = True
        elif handle.state == "launching" and row.state == "requested":
            self.book.enter(row, "launching")  # an earlier head asked for it and could not say so any more
            news = True
        if news:
            await self.book.save(row)

    def _say_up(self, row: NodeRow, handle: NodeHandle) -> None:
        first = self.book.first_offer(row)
        self._events.add("node_launched", f"{row.id}: {row.offer}, ${row.usd_per_hour:.2f}/h, {self._provisioner.name}")
        if handle.offer is not None and first is not None and str(first) != row.offer:
            tried = "; ".join(handle.tried) or f"{first} had no capacity"
            self._events.add("fall_back", f"{row.id}: {row.offer} instead of {first}: {tried}")

    async def _stray(self, stray: NodeHandle) -> None:
        """Something that carries our uid and that no row covers, or only one that was closed: it must not bill."""
        if nothing_left(stray) or any(row.intent == stray.intent for row in self.open):
            return
        name = f"stray-{stray.provider_id or stray.node}"
        if name not in self._tasks:
            self._events.add("orphan", f"{stray.provider_id or stray.node}: nobody's machine; ending it")
            self._begin(name, self._release_stray(stray))

    # --- acting -----------------------------------------------------------------------------------------------

    async def _perform(self, action: decide.Action, now: float) -> None:
        if isinstance(action, decide.Launch):
            if len(self._tasks) < MAX_CALLS:
                token = keys.new_token()
                row = self.book.new_row(action.wish, self._provisioner.name, keys.hashed(token))
                self._begin(row.id, self._launch(row, action.wish, token))
            return
        row = self.book.rows[action.node]
        match action:
            case decide.Fail():
                await self._failed(row, self.book.listed[row.id], now)
            case decide.Lose(why=why, young=young):
                await self._lose(row, why, now, young=young)
            case decide.Drain(why=why):
                await self._drain(row, why)
            case decide.Release():
                self._let_go(row)
                self._begin(row.id, self._release(row))
            case decide.Close():
                await self._close(row)

    def _begin(self, name: str, work: "Awaitable[None]") -> None:
        async def guarded() -> None:
            try:
                await work
            except (DisagctlError, StoreFull, OSError) as err:
                log.error("%s: %s", name, err)  # level-triggered: the next turn tries again
            finally:
                self._tasks.pop(name, None)

        self._tasks[name] = asyncio.ensure_future(guarded())

    async def _launch(self, row: NodeRow, wish: NodeWish, token: str) -> None:
        limits = self._recipe
        try:  # before the call: whatever happens next, we know of it, and there is money for it
            await self._store.write(reserve_node(row, *self._walls()))
        except (OverBudgetError, StoreFull) as err:
            self.book.forget(row)
            kind = "over_budget" if isinstance(err, OverBudgetError) else "storage"
            if kind == "over_budget" and any(other.state in {"lost", "releasing"} for other in self.open):
                kind = "awaiting_release"  # what is on its way out counts until it is confirmed gone
            self._trouble(row.wish, NodeHandle(row.id, "failed", why=str(err)), kind)
            return
        if self._ending:
            await self._close(row)
            return
        spot = any(offer.spot for offer in wish.offers)
        boot = msgspec.structs.replace(limits.template, node=row.id, token=token, spot=spot)
        request = NodeRequest(
            row.id, row.intent, limits.service, limits.uid, wish.offers, msgspec.json.encode(boot), limits.folders,
            limits.secrets, limits.template.dead_man_s,
        )  # fmt: skip
        try:
            handle = await self._provisioner.launch(request)
        except Exception as err:  # boundary: a provider's library; the machine may exist all the same
            if not isinstance(err, DisagctlError):
                log.exception("launch of %s", row.id)
            await self._failed(row, failure_of(row, err), self._engine.clock())
            return
        if row.state == "requested":
            self.book.enter(row, "launching")
        row.billed_from = clock.wall_s()
        self.book.told(row, handle)
        await self.book.save(row)
        if handle.pid:
            self._events.add("node_launched", f"{row.id}: {self._provisioner.name}, pid {handle.pid}")
        else:
            self._events.add("node_requested", f"{row.id}: {wish.offers[0]}, or {len(wish.offers) - 1} other offer(s)")

    def _walls(self) -> tuple[float | None, float | None]:
        """What the budget leaves for nodes: USD an hour, and USD in all."""
        limits, head = self._recipe, self._recipe.head
        hourly, total = limits.max_usd_per_hour, limits.max_usd_total
        if head is None:
            return hourly, total
        spent = head.usd(clock.wall_s())
        return hourly and max(0.0, hourly - head.usd_per_hour), total and max(0.0, total - spent)

    async def _failed(self, row: NodeRow, handle: NodeHandle, now: float) -> None:
        self._trouble(row.wish, handle, handle.failure or "error")
        row.billed_from, row.why = None, handle.why
        self._let_go(row)
        await self.book.save(row)
        self._begin(row.id, self._release(row))

    def _trouble(self, wish: str, handle: NodeHandle, kind: str) -> None:
        before = self.troubles.get(wish)
        self.troubles[wish] = after = decide.troubled(before, kind, self._engine.clock())
        if kind != "lost":
            self.failures[wish] = TroubleView(
                wish, kind, handle.why, list(handle.tried), after.failures, after.given_up
            )
            tried = f" — tried {'; '.join(handle.tried)}" if handle.tried else ""
            again = "given up" if after.given_up else f"again in {after.not_before_s - self._engine.clock():.0f} s"
            self._events.add("launch_failed", f"{handle.node}: {kind}: {handle.why}{tried} — {again}")

    async def _lose(self, row: NodeRow, why: str, now: float, *, young: bool) -> None:
        if not self._ending:
            self._events.add("node_lost", f"{row.id}: {why}; its work goes to others")
        if young:
            self._trouble(row.wish, NodeHandle(row.id, "gone", why=why), "lost")
        else:
            self.troubles.pop(row.wish, None)
        row.why = why
        self.book.enter(row, "lost")
        self._drop_workers(row)
        await self.book.save(row)
        self._begin(row.id, self._release(row))

    async def _drain(self, row: NodeRow, why: str) -> None:
        self._events.add("node_draining", f"{row.id}: {why}")
        self.book.enter(row, "draining")
        self._engine.roster.leaving.add(row.id)
        await self.book.save(row)
        self._engine.rewish()
        self._engine.act()

    def _let_go(self, row: NodeRow) -> None:
        """It serves no more; a lost one stays called lost."""
        self._hub.send(row.id, Shutdown())
        if row.state != "lost":
            self.book.enter(row, "releasing")
        self._drop_workers(row)

    def _drop_workers(self, row: NodeRow) -> None:
        """What ran there goes to others, and its key opens nothing any more."""
        for worker in self._engine.roster.node_lost(row.id):
            self._engine.ledger.worker_lost(worker, f"node {row.id} is {row.state}")
        self.refresh_keys()
        self._engine.rewish()
        self._engine.act()

    async def _release(self, row: NodeRow) -> None:
        self.book.asked(row)
        await self.book.save(row)
        try:
            await self._provisioner.release(self.book.handle(row))
        except Exception as err:  # noqa: BLE001  # boundary: a provider's library; it is asked again
            row.why = str(err)
            log.error("release of %s: %s", row.id, err)
            self._events.add("release_failed", f"{row.id} ({row.offer}, ${row.usd_per_hour:.2f}/h): {err}")

    async def _release_stray(self, stray: NodeHandle) -> None:
        await self._provisioner.release(stray)

    async def _close(self, row: NodeRow) -> None:
        self.book.close(row)
        self.refresh_keys()
        await self.book.save(row)

    def _watch_money(self) -> None:
        """Once everything that may be spent is spent, nothing is wished for any more."""
        most = self._recipe.max_usd_total
        if most is not None and not self._spent and self.book.usd_total(clock.wall_s()) >= most:
            self._spent = True
            self._events.add("budget_spent", f"${most:.2f} are spent: every machine is given back")


async def reconcile_forever(nodes: Nodes, period_s: float) -> None:
    """The slow loop of the head."""
    while True:
        try:
            await nodes.reconcile()
        except (DisagctlError, StoreFull, OSError) as err:
            log.error("reconcile: %s", err)  # level-triggered: the next turn tries again
        await asyncio.sleep(period_s)
