"""What is known of each machine: its row in the store, and beside it what only this head has seen. Decides nothing."""

import logging
import secrets
from typing import Final

import msgspec

from disagctl import clock
from disagctl.engine import Engine
from disagctl.errors import CredentialsError, DisagctlError, InfeasibleError
from disagctl.provision.base import Failure, HandleState, NodeHandle, nothing_left
from disagctl.roster import Rented
from disagctl.store import Store, StoreFull, put_node
from disagctl.store.rows import NODE_COLUMNS, NodeRow
from planner.domain import Offer
from planner.run.fleet import NodeWish
from planner.run.nodes import DOUBT_S, RELEASE_AGAIN_S, Machine
from planner.run.rent import dearest
from stages.boot import Bootstrap

log = logging.getLogger(__name__)

HANDLE_STATES: Final[dict[str, HandleState]] = {"requested": "launching", "launching": "launching"}


class Recipe(msgspec.Struct, frozen=True):
    """What every machine of the service is made with. ``wishes``: until somebody wishes otherwise. ``parts``: by wish.

    ``plan``: names the plan that all this is from.
    """

    template: Bootstrap
    service: str
    uid: str
    wishes: tuple[NodeWish, ...]
    folders: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    plan: str = ""
    parts: dict[str, dict[str, float]] = {}
    max_usd_per_hour: float | None = None
    max_usd_total: float | None = None
    head: NodeRow | None = None  # the machine that the head has to itself: nobody's wish, and paid for all the same


class NodeBook:
    """The rows, by node. Monotonic times are this head's: a machine that an earlier one left is new to it."""

    def __init__(self, store: Store, engine: Engine, recipe: Recipe) -> None:
        self._store, self._engine, self._recipe = store, engine, recipe
        read = store.read(f"SELECT {NODE_COLUMNS} FROM nodes ORDER BY created_at")  # noqa: S608  # our own columns
        self.parts = dict(recipe.parts)
        self.rows = {row[0]: NodeRow(*row) for row in read}
        self.listed: dict[str, NodeHandle] = {}  # the provider's last word
        self.confirmed: dict[str, int] = {}  # how often in a row it was listed gone, after we had given it up
        now = engine.clock()
        self._seen_s = dict.fromkeys(self.rows, now)
        self._since_s = dict(self._seen_s)
        self._made = max(
            (int(name[1:]) for name in self.rows if name[1:].isdigit()), default=0
        )  # some were never asked for
        for row in self.open:
            self._note(row)

    @property
    def open(self) -> list[NodeRow]:
        """Machines that may exist."""
        return [row for row in self.rows.values() if row.state != "gone"]

    def usd_per_hour(self) -> float:
        """What the machines that may exist cost now."""
        return sum(row.usd_per_hour for row in self.paid if row.billed_from is not None and row.state != "gone")

    @property
    def paid(self) -> list[NodeRow]:
        """Every machine that there is or was, the head's own among them."""
        return [*self.rows.values(), *([self._recipe.head] if self._recipe.head is not None else [])]

    def usd_total(self, now: float) -> float:
        """What all machines have cost by then (wall clock)."""
        return sum(row.usd(now) for row in self.paid)

    def machines(self, now: float, acting: set[str]) -> list[Machine]:
        """What there is to decide about."""
        return [self._machine(row, now, row.id in acting) for row in self.open]

    def new_row(self, wish: NodeWish, provider: str, token_hash: str) -> NodeRow:
        """A machine to be asked for. It reserves the dearest offer that it may come from."""
        self._made += 1
        price = dearest(wish.offers)
        row = NodeRow(
            f"n{self._made}", provider, str(wish.offers[0]) if wish.offers else provider, price, token_hash, None,
            "requested", clock.wall_s(), intent=secrets.token_hex(4), wish=wish.key, offers=msgspec.json.encode(wish.offers),
            parts=msgspec.json.encode(self.parts.get(wish.key, {})), reserved=price,
        )  # fmt: skip
        self.rows[row.id] = row
        self._seen_s[row.id] = self._since_s[row.id] = self._engine.clock()
        self._note(row)
        return row

    def forget(self, row: NodeRow) -> None:
        """It was never asked for."""
        del self.rows[row.id]
        self._engine.roster.rented.pop(row.id, None)

    def enter(self, row: NodeRow, state: str) -> None:
        """Change its state."""
        if row.state != state:
            row.state = state
            self._since_s[row.id] = self._engine.clock()

    def asked(self, row: NodeRow) -> None:
        """Its release is being asked for (again)."""
        self._since_s[row.id] = self._engine.clock()
        self.confirmed.pop(row.id, None)

    def release_due(self, row: NodeRow, now: float) -> bool:
        """Whether it is time to ask again, for one that is still listed."""
        told = self.listed.get(row.id)
        return (told is None or not nothing_left(told)) and now - self._since_s[row.id] >= RELEASE_AGAIN_S

    def told(self, row: NodeRow, handle: NodeHandle) -> bool:
        """Take in what the provider says; whether there is anything to keep."""
        self.listed[row.id] = handle
        if row.state in {"lost", "releasing"}:
            self.confirmed[row.id] = self.confirmed.get(row.id, 0) + 1 if nothing_left(handle) else 0
        before = row.values()
        row.provider_id, row.request_id = handle.provider_id or row.provider_id, handle.request_id or row.request_id
        row.pid, row.pid_created = handle.pid or row.pid, handle.pid_created or row.pid_created
        if handle.state in {"launching", "up"} and row.billed_from is None:
            row.billed_from = row.created_at
        if handle.offer is not None and (handle.state == "up" or row.state in {"up", "draining"}):
            offer = self._priced(row, handle.offer)
            row.offer, row.usd_per_hour, row.reserved = str(offer), offer.usd_per_hour, offer.usd_per_hour
            self._note(row)
        return before != row.values()

    def close(self, row: NodeRow) -> None:
        """It is gone for sure."""
        self.enter(row, "gone")
        row.closed_at = clock.wall_s()
        self._engine.roster.rented.pop(row.id, None)
        self._engine.roster.leaving.discard(row.id)
        for known in (self.listed, self.confirmed, self._seen_s, self._since_s):
            known.pop(row.id, None)

    def handle(self, row: NodeRow) -> NodeHandle:
        """For the provider."""
        state = self._engine.roster.nodes.get(row.id)
        silent = state is not None and self._engine.clock() - state.heard_s > DOUBT_S
        return NodeHandle(
            row.id, HANDLE_STATES.get(row.state, "up"), row.intent, None, row.provider_id, row.request_id,
            pid=row.pid, pid_created=row.pid_created, doubted=silent or row.state in {"lost", "releasing"},
        )  # fmt: skip

    def first_offer(self, row: NodeRow) -> Offer | None:
        """What the wish meant; None for ``infra: local``."""
        offers = self.offers(row)
        return offers[0] if offers else None

    @staticmethod
    def offers(row: NodeRow) -> tuple[Offer, ...]:
        """Where it may come from."""
        return msgspec.json.decode(row.offers, type=tuple[Offer, ...])

    async def save(self, row: NodeRow) -> bool:
        """Keep it. A full disk must not end anything: the next change tries again."""
        try:
            await self._store.write(put_node(row))
        except StoreFull as err:
            log.warning("cannot record %s yet: %s", row.id, err)
            return False
        return True

    def _note(self, row: NodeRow) -> None:
        offers = self.offers(row)
        if offers and offers[0].accelerator:
            actual = next((offer for offer in offers if str(offer) == row.offer), offers[0])
            rented = Rented(offers[0].accelerator, offers[0].count, actual.accelerator)
            self._engine.roster.rented[row.id] = rented
        if row.state == "draining":
            self._engine.roster.leaving.add(row.id)

    def _priced(self, row: NodeRow, told: Offer) -> Offer:
        """The offer of ours that the provider's words mean: prices are ours, its own may be those of another list."""
        offers = msgspec.json.decode(row.offers, type=tuple[Offer, ...])
        same = [offer for offer in offers if _place(offer) == _place(told)]  # a Slurm's names for its kinds are its own
        return next((offer for offer in same if offer.instance_type == told.instance_type), same[0] if same else told)

    def _machine(self, row: NodeRow, now: float, acting: bool) -> Machine:
        roster = self._engine.roster
        state = roster.nodes.get(row.id)
        handle = self.listed.get(row.id)
        return Machine(
            node=row.id, wish=row.wish, state=row.state,  # type: ignore[arg-type]  # open rows have these states
            age_s=now - self._seen_s[row.id], state_s=now - self._since_s[row.id],
            silent_s=max(0.0, now - state.heard_s) if state is not None and state.greeted else None,
            listed=handle.state if handle is not None else "", confirmed=self.confirmed.get(row.id, 0),
            workers=sum(1 for worker in roster.workers.values() if worker.node == row.id), acting=acting, why=row.why,
        )  # fmt: skip


def failure_of(row: NodeRow, err: Exception) -> NodeHandle:
    """A launch that raised, as a handle."""
    failure: Failure | None = None
    if isinstance(err, CredentialsError):
        failure = "quota" if err.error_code == "quota" else "credentials"
    elif isinstance(err, InfeasibleError):
        failure = "impossible" if err.error_code == "impossible" else "no_capacity"
    why = str(err) if isinstance(err, DisagctlError) else f"{type(err).__name__}: {err}"[:300]
    return NodeHandle(row.id, "failed", row.intent, failure=failure, why=why)


def _place(offer: Offer) -> tuple[str, str, str, int, bool]:
    names = (offer.cloud, offer.region, offer.accelerator)
    cloud, region, gpu = (name.lower() for name in names)
    return cloud, region, gpu, offer.count, offer.spot
