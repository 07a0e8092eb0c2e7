"""The service's machines: every one has a row before it exists and keeps it until it is confirmed gone."""

import asyncio
import logging
from typing import Final

import msgspec

from disagctl import clock, keys
from disagctl.engine import Engine
from disagctl.errors import DisagctlError
from disagctl.events import EventLog
from disagctl.hub import Hub
from disagctl.provision.base import NodeHandle, NodeRequest, Provisioner
from disagctl.store import Store, StoreFull, put_node
from disagctl.store.rows import NODE_COLUMNS, NodeRow
from stages.enrol import is_public_key
from stages.protocol import Bootstrap, Enrolled, Shutdown
from stages.transport.data_server import DataServer

log = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
SETTLED_S: Final = 120.0


class Nodes:
    """Keeps one local node alive (other providers bring their own numbers), enrols agents, ends them."""

    def __init__(
        self, store: Store, engine: Engine, events: EventLog, provisioner: Provisioner, template: Bootstrap,
        hub: Hub, data: DataServer, endpoints: Enrolled,
    ) -> None:  # fmt: skip
        self._store, self._engine, self._events = store, engine, events
        self._provisioner, self._template = provisioner, template
        self._hub, self._data, self._endpoints = hub, data, endpoints
        columns = [c.strip() for c in NODE_COLUMNS.split(",")]
        rows = store.read(f"SELECT {NODE_COLUMNS} FROM nodes ORDER BY created_at")  # noqa: S608  # ours
        self.rows = {row[0]: NodeRow(**dict(zip(columns, row, strict=True))) for row in rows}
        self._pause_s = FIRST_PAUSE_S
        self._not_before_s = 0.0
        self._ending = False
        self.refresh_keys()

    @property
    def open(self) -> list[NodeRow]:
        """Machines that may exist."""
        return [row for row in self.rows.values() if row.state != "gone"]

    async def reconcile(self) -> None:
        """Close the rows of machines that are gone, and see that there is one."""
        now = self._engine.clock()
        handles = [self._handle(row) for row in self.open]
        for handle in await self._provisioner.list(handles):
            if not handle.alive:
                await self._lost(self.rows[handle.node], now)
        if not self._ending and not self.open and now >= self._not_before_s:
            await self._launch(now)

    async def admit(self, token: bytes, node: bytes, key: bytes) -> Enrolled | None:
        """Enrolment: a token once, for the node it was made for. Repeating it with the same key is a lost answer."""
        row = self.rows.get(node.decode("ascii", "replace"))
        if row is None or row.state == "gone" or not is_public_key(key):
            return None
        if not keys.same(keys.hashed(token.decode("ascii", "replace")), row.token_hash):
            return None
        public = key.decode("ascii")
        if row.public_key not in (None, public):
            self._events.add("refused", f"{row.id}: a second enrolment with another key")
            return None
        row.public_key, row.state = public, "up"
        try:
            await self._store.write(put_node(row))
        except StoreFull as err:
            log.warning("cannot enrol %s yet: %s", row.id, err)
            row.public_key = None
            return None
        self.refresh_keys()
        return msgspec.structs.replace(self._endpoints, node=row.id)

    def refresh_keys(self) -> None:
        """Tell everybody who may talk to whom."""
        allowed = {row.public_key: row.id for row in self.open if row.public_key}
        self._hub.allow(allowed)
        self._data.set_peers(allowed)
        self._engine.set_peers(tuple(allowed))

    async def end(self) -> list[str]:
        """Shut every agent down; returns what could not be ended."""
        self._ending = True
        for row in self.open:
            self._hub.send(row.id, Shutdown())
        survivors: list[str] = []
        for row in self.open:
            try:
                await self._provisioner.release(self._handle(row))
            except DisagctlError as err:
                survivors.append(str(err))
                continue
            await self._close(row)
        return survivors

    async def _launch(self, now: float) -> None:
        token = keys.new_token()
        node = f"n{len(self.rows) + 1}"
        row = NodeRow(node, self._provisioner.name, "local", 0.0, keys.hashed(token), None, "requested", clock.wall_s())
        self.rows[node] = row
        await self._store.write(put_node(row))  # before the call: whatever happens next, we know of it
        self._not_before_s = now + self._pause_s
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
        boot = msgspec.structs.replace(self._template, node=node, token=token)
        handle = await self._provisioner.launch(NodeRequest(node, row.offer, msgspec.json.encode(boot)))
        if row.state == "requested":
            row.state = "launching"
        row.pid, row.pid_created = handle.pid, handle.pid_created
        await self._store.write(put_node(row))
        self._events.add("node_launched", f"{node}: {self._provisioner.name}, pid {handle.pid}")

    async def _lost(self, row: NodeRow, now: float) -> None:
        if not self._ending:
            self._events.add("node_lost", f"{row.id}: its agent has ended; its work goes to others")
        if clock.wall_s() - row.created_at > SETTLED_S:
            self._pause_s, self._not_before_s = FIRST_PAUSE_S, now
        for worker in self._engine.roster.node_lost(row.id):
            self._engine.ledger.worker_lost(worker, f"node {row.id} is lost")
        await self._close(row)
        self._engine.rewish()
        self._engine.act()

    async def _close(self, row: NodeRow) -> None:
        row.state, row.closed_at = "gone", clock.wall_s()
        self.refresh_keys()
        try:
            await self._store.write(put_node(row))
        except StoreFull as err:
            log.warning("cannot record that %s is gone: %s", row.id, err)

    def _handle(self, row: NodeRow) -> NodeHandle:
        return NodeHandle(row.id, True, row.pid, row.pid_created)


async def reconcile_forever(nodes: Nodes, period_s: float) -> None:
    """The slow loop of the head."""
    while True:
        try:
            await nodes.reconcile()
        except (DisagctlError, StoreFull, OSError) as err:
            log.error("reconcile: %s", err)  # level-triggered: the next turn tries again
        await asyncio.sleep(period_s)
