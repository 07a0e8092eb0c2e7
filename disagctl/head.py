"""The head of one service: ``python -m disagctl.head SERVICE_DIR``. The composition root: it knows every part, and only it.

Order of a start: record and keys, store, a new incarnation, sockets, what earlier heads had accepted, nodes, HTTP. A head
that starts again binds the same ports, so that agents and workers which outlived the last one find it and report.
"""

import asyncio
import fcntl
import logging
import math
import os
import signal
import ssl
import sys
from pathlib import Path
from typing import Final

import psutil

from disagctl import clock, keys, precheck, state
from disagctl.artifacts import ArtifactStore
from disagctl.control_config import Known, first_counts, loop_off, places, policy_config, role_bounds, widths_of, within
from disagctl.controller import (
    Controller,
    OneMachine,
    Save,
    decode_counts,
    decode_seating,
    encode_counts,
    memory_of,
)
from disagctl.desk import FrontDesk
from disagctl.dispatching import Alone, dispatch_policy
from disagctl.engine import Engine
from disagctl.errors import UnhealthyError
from disagctl.events import EventLog
from disagctl.gateway.admin import admin_app
from disagctl.gateway.app import public_app
from disagctl.gateway.server import HttpServer
from disagctl.gateway.sockets import bind_tcp, bind_unix
from disagctl.hub import EnrolDesk, Hub
from disagctl.keeper import RentedMachines
from disagctl.load_watch import LoadWatch
from disagctl.metrics import prometheus
from disagctl.models import card_of
from disagctl.nodes import Nodes, reconcile_forever
from disagctl.objectives import Objectives
from disagctl.provision.choose import provisioner_of, torch_needed
from disagctl.rented import bracketed, bundles_of, load_deployment, no_seats, recipe, relay_prefix, shares_of
from disagctl.renting_loop import Landlord, rented_config
from disagctl.roster import Roster
from disagctl.service import ModelInfo
from disagctl.settings import collect_rarely, use_fast_loop
from disagctl.spec import Spec, load_spec
from disagctl.spec.units import MAX_REPLICAS
from disagctl.spending import cost_view
from disagctl.status import status_view
from disagctl.store import Store, StoreFull, add_token, next_incarnation, set_meta
from disagctl.views import CostView, EventView, StatusView
from planner.domain import Role
from planner.run.book import Limits
from planner.run.config import Predict
from planner.run.ledger import Ledger
from planner.run.policy import Policy
from planner.run.rent import Deployment
from stages.boot import Enrolled
from stages.hardware import gpus
from stages.logfile import LogFile
from stages.protocol import LEASE_S, ModelSource
from stages.transport.data_server import DataServer
from stages.transport.relay import RelayError, remove_prefix, stored_workers
from stages.transport.segments import remove_service

log = logging.getLogger("disagctl.head")

TICK_S: Final = 0.25
NODES_S: Final = 0.5
JANITOR_S: Final = 60.0
LOOPBACK: Final = "127.0.0.1"


class Head(FrontDesk):
    """Everything of one service. ``run`` until it is told to stop."""

    def __init__(self, where: state.ServicePaths) -> None:
        self.where = where
        self.record = state.read_record(where)
        self.spec: Spec = load_spec(where.spec, check_files=False)
        self.started_at = clock.wall_s()
        self.transport = self.spec.transport.mode
        self.pair = keys.head_keys(where.keys)
        store = Store(where.store)
        self.deployment = load_deployment(where)
        self.data = DataServer(
            public_key=self.pair.public, secret_key=self.pair.secret, host=self.record.bind,
            port=self.record.data_port, advertise=self.record.advertise,
        )  # fmt: skip
        models = model_infos(self.spec, self.record.created_at)
        self.bounds = role_bounds(self.spec, models)
        self.places = places(self.spec, self.bounds, len(gpus()))
        sources = sources_of(self.spec, models)
        widths = widths_of(sources)
        self.loop_off = loop_off(self.spec, widths, len(gpus()))  # why counts stay as planned
        self.engine = Engine(
            Ledger(0, ledger_limits(self.spec)),
            Roster(self._first_counts()),
            0,
            sources,
            self.spec.pipeline.prefetch if self.spec.pipeline.mode == "async" else 0,
        )
        self.engine.roster.shares = shares_of(self.deployment)
        self.engine.roster.bundles = bundles_of(self.deployment) or None
        self.engine.roster.widths = widths
        self.events_log = EventLog(store)
        artifacts = ArtifactStore(where.artifacts, where.inputs)
        super().__init__(
            self.record.name, models, store, artifacts, self.engine, self.events_log,
            self.spec.api.max_queued, (self.data.endpoint, self.pair.public),
        )  # fmt: skip
        self.engine.routes.relay = self.spec.transport.relay is not None
        self.hub = Hub(self.record.bind, self.record.hub_port, self.pair, self.engine)
        self.engine.sender, self.engine.desk, self.engine.alarm = self.hub, self, self._wake_at
        self._alarm_s = math.inf
        self.was_ready = False
        limits = self.spec.budget
        self.budget = {
            k: v for k in ("max_usd_per_hour", "max_usd_total") if (v := getattr(limits, k)) is not None
        } or None
        self._artifact_store = artifacts
        self._stopped = asyncio.Event()
        self._discard = False
        self._strangers: set[str] = set()  # owners of relayed objects that were unknown at the last look
        self._tokens = {row[0] for row in store.read("SELECT hash FROM tokens")}
        self._log = LogFile(where.logs / "head.log")
        self.nodes = self._make_nodes(store)
        self.load_watch, self.controller = self._make_controller(store)
        self.enrol = EnrolDesk(self.record.bind, self.record.enrol_port, self.pair, self.nodes.admit)
        self._servers = (
            HttpServer(public_app(self), bind_tcp(self.record.http_host, self.record.http_port), tls=tls_of(self.spec)),
            HttpServer(admin_app(self), bind_unix(where.admin_socket)),
        )

    @property
    def endpoint(self) -> str:
        """Where clients find the API."""
        return self.record.url

    # --- what the gateway asks beyond the desk ----------------------------------------------------------------

    def readiness(self) -> tuple[bool, str]:
        """Whether every stage has a ready worker and there is room in the queue."""
        if self.stopping:
            return False, "stopping"
        ready = {w.role for w in self._ledger.workers.values() if not w.draining}
        missing = [str(role) for role in self.engine.roster.wanted if role not in ready]
        if missing:
            return False, f"no ready worker for {', '.join(missing)}"
        if len(self._ledger.requests) >= self._max_queued:
            return False, "the queue is full"
        return True, "ok"

    def status(self) -> StatusView:
        """Everything there is to show."""
        view = status_view(self)
        self.was_ready |= view.state == "ready"
        return view

    def events(self, after_seq: int) -> list[EventView]:
        """Events newer than ``after_seq``."""
        return self.events_log.after(after_seq)

    def cost(self) -> CostView:
        """What was spent so far."""
        return cost_view(self.name, self.nodes.book.paid, self.counts["succeeded"], clock.wall_s())

    def metrics(self) -> bytes:
        """Prometheus text."""
        return prometheus(self.status())

    async def scale(self, counts: dict[str, int], *, auto: bool) -> None:
        """Pin these stages' worker counts, or hand all back to the spec."""
        roster, pins = self.engine.roster, {} if auto else dict(self.controller.pins)
        static = self.controller.policy.config.mode == "static"
        counts_before = self._first_counts() if auto and static else roster.wanted
        for name, count in counts.items():
            roles = [r for r in roster.wanted if name in (r.stage, str(r))]
            if not roles:
                known = ", ".join(dict.fromkeys(r.stage for r in roster.wanted))
                msg = f"no stage {name!r}; there are {known}"
                raise ValueError(msg)
            if not 0 < count <= MAX_REPLICAS:
                msg = f"{name}={count}: a stage has 1 to {MAX_REPLICAS} workers"
                raise ValueError(msg)
            pins.update(dict.fromkeys(roles, count))
        wanted = {b.role: pins.get(b.role, within(counts_before[b.role], b)) for b in self.bounds}
        self._check_room(wanted)
        await self._store.write(set_meta("wanted", encode_counts(pins)))
        roster.wanted, self.controller.pins = wanted, pins
        self.event("scale", ", ".join(f"{r}={n}" for r, n in wanted.items()) + (" (auto)" if auto else " (pinned)"))
        self.controller.tick()  # the others may have to give way
        self.engine.rewish()
        self.engine.act()

    def _check_room(self, wanted: dict[Role, int]) -> None:
        """Refuse what this machine cannot hold, judged by the workers there are, and workers of several GPUs beyond those that
        were planned for. Raises ValueError."""
        roster = self.engine.roster
        msg = no_seats(wanted, roster, self.deployment, len(gpus()))
        if msg:
            raise ValueError(msg)
        if self.deployment is not None:
            return  # they run elsewhere
        more = sum(wanted.values()) - sum(roster.wanted.values())
        sizes = [w.rss_bytes for w in roster.workers.values() if w.rss_bytes]
        need = more * sum(sizes) // len(sizes) if sizes else 0
        free = int(psutil.virtual_memory().available)
        if need > free:
            msg = f"{more} more workers need about {precheck.gib(need)} of memory, {precheck.gib(free)} is available"
            raise ValueError(msg)

    async def new_token(self) -> str:
        """Mint a bearer token; only its hash is kept."""
        token = keys.new_token()
        await self._store.write(add_token(keys.hashed(token), clock.wall_s()))
        self._tokens.add(keys.hashed(token))
        return token

    def token_ok(self, token: str | None) -> bool:
        """Anonymous use is for loopback on ``infra: local`` alone."""
        loopback = self.record.http_host in (LOOPBACK, "localhost", "::1")
        if self.record.infra == ["local"] and loopback and not self.spec.api.public:  # a proxy comes from loopback, too
            return True
        return token is not None and keys.hashed(token) in self._tokens

    async def stop(self, *, discard: bool) -> None:
        """Begin teardown."""
        self.stopping = True
        self._discard = discard
        self.record.stopping = True
        self._stopped.set()
        try:
            state.write_record(self.where, self.record)
        except OSError as err:  # a full disk must not keep us from going
            log.warning("cannot record that we stop: %s", err)

    # --- running ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until told to stop."""
        incarnation = int(await self._store.write(next_incarnation))
        enrolled = [row.id for row in self.nodes.open if row.public_key]
        self.engine.restart(incarnation, enrolled)
        requests = self.restore(self.book.load("state='open' ORDER BY created_at, job, idx", ()))
        self._count_history()
        self._ledger.recover(requests, self.engine.clock(), LEASE_S if enrolled else 0.0)
        self.data.start(self._artifact_store.read, self._artifact_store)
        self.hub.start()
        self.enrol.start()
        self._record_start()
        self.event("head_started", f"incarnation {incarnation}, {len(requests)} unfinished requests taken up")
        if self.loop_off and self.spec.policy.scaling != "static":
            self.event("loop_off", f"counts stay as planned: {self.loop_off}")
        for sig in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(sig, self._stopped.set)
        for server in self._servers:
            await server.start()
        async with asyncio.TaskGroup() as group:
            loops = [
                group.create_task(self._ticks()),
                group.create_task(reconcile_forever(self.nodes, NODES_S)),
                group.create_task(self._janitor()),
                group.create_task(self.controller.run()),
            ]
            await self._stopped.wait()
            if self.stopping:
                await self._tear_down()
            for task in loops:
                task.cancel()
        await self.controller.close()
        await self.close()

    async def close(self) -> None:
        """Sockets, threads, files."""
        for server in self._servers:
            await server.stop()
        self.enrol.close()
        self.hub.close()
        self.data.stop()
        await asyncio.to_thread(self._store.close)

    async def _tear_down(self) -> None:
        self.event("stopping", "every node is told to end")
        for survivor in await self.nodes.end():
            self.event("teardown_incomplete", survivor)
        await asyncio.to_thread(remove_service, Path(self.record.shm_dir))
        if prefix := relay_prefix(self.spec):
            try:
                await asyncio.to_thread(remove_prefix, prefix)
            except RelayError as err:
                self.event("teardown_incomplete", f"objects in {prefix} remain: {err}")

    def _wake_at(self, at_s: float) -> None:
        """Have the engine act then, between two ticks."""
        if at_s < self._alarm_s:
            self._alarm_s = at_s
            asyncio.get_running_loop().call_later(max(0.0, at_s - self.engine.clock()), self._ring)

    def _ring(self) -> None:
        self._alarm_s = math.inf
        self.engine.act()

    async def _ticks(self) -> None:
        while True:
            try:
                self.engine.tick()
                if not self.was_ready:
                    self.status()
            except Exception:  # boundary: a defect in one decision must not end the service
                log.exception("tick failed")
            await asyncio.sleep(TICK_S)

    async def _janitor(self) -> None:
        while True:
            try:
                self._log.trim()
                await self.expire(self.spec.artifacts.ttl_s, self.spec.artifacts.max_gib * (1 << 30))
                await self._sweep_relay()
            except (StoreFull, OSError, RelayError) as err:
                log.warning("the janitor comes back later: %s", err)
            await asyncio.sleep(JANITOR_S)

    async def _sweep_relay(self) -> None:
        """Remove what workers left in the store that died together with their agents: those unknown a turn ago and now."""
        if prefix := relay_prefix(self.spec):
            found = await asyncio.to_thread(stored_workers, prefix)
            unknown = found - self.engine.roster.workers.keys()
            for worker in unknown & self._strangers:
                await asyncio.to_thread(remove_prefix, prefix, worker)
            self._strangers = unknown

    def _count_history(self) -> None:
        for ended, count in self._store.read("SELECT state, COUNT(*) FROM items GROUP BY state"):
            self.counts["accepted"] += count
            if ended != "open":
                self.counts[ended] += count

    def _record_start(self) -> None:
        self.record.head_pid = os.getpid()
        self.record.head_started = psutil.Process().create_time()
        self.record.head_started_at = self.started_at
        state.write_record(self.where, self.record)

    def _make_nodes(self, store: Store) -> Nodes:
        host = bracketed(self.record.advertise)
        endpoints = Enrolled("", f"tcp://{host}:{self.record.hub_port}", self.data.endpoint, keys.relay_key(self.pair))
        made_with = recipe(self.where, self.record, self.spec, self.pair, self.deployment)
        provisioner = provisioner_of(self.where, self.record, torch=torch_needed(self.spec))
        return Nodes(store, self.engine, self.events_log, provisioner, made_with, self.hub, self.data, endpoints)

    def _first_counts(self) -> dict[Role, int]:
        """Workers of each role before anything was decided: the plan's, else the spec's."""
        moving = self.spec.policy.scaling != "static" and not self.loop_off
        counts = first_counts(self.bounds, self.places if moving else None)
        planned = self.deployment.wanted if self.deployment is not None else {}
        return counts | {role: count for role, count in planned.items() if role in counts}

    def _make_controller(self, store: Store) -> tuple[LoadWatch, Controller]:
        """The loop, with what earlier heads had learnt and last decided."""
        stored = dict(store.read("SELECT key, value FROM meta"))
        slo_s = {m.name: p95 for m in self.spec.models if (p95 := self.spec.slo_of(m).p95_s) is not None}
        made, seating = self.deployment, decode_seating(stored.get("seating", ""), self.record.plan)
        if made is None:
            known = Known(self.spec, self.where.spec)
            predict: Predict = known.seconds
            config = policy_config(self.spec, self.bounds, known, slo_s, self.loop_off)
        else:
            config, predict, self.loop_off = rented_config(self.spec, self.bounds, made, slo_s, seating)
        policy = Policy(config, predict, memory_of(stored.get("policy", "")))
        alone = Alone(self.engine, policy.timings, {m.name: m.card.stages for m in self.models()})
        watch = LoadWatch(self.engine, Objectives(self.spec, alone).seconds)
        self._ledger.serve_by(dispatch_policy(self.spec.policy.dispatching, self.engine, policy))

        async def save(key: str, value: str) -> None:
            await self._store.write(set_meta(key, value))

        if made is None:
            controller = Controller(watch, policy, OneMachine(self.places), self.event, save)
        else:
            controller = self._rented_loop(made, watch, policy, save)
        roles, wanted = {bound.role for bound in self.bounds}, self.engine.roster.wanted
        controller.pins = {r: n for r, n in decode_counts(stored.get("wanted", "")).items() if r in roles}
        decided = {} if config.mode == "static" else decode_counts(stored.get("counts", ""))
        wanted.update({b.role: within(decided.get(b.role, wanted[b.role]), b) for b in self.bounds})
        wanted.update(controller.pins)
        self.engine.watcher, self.engine.ask = watch, controller.ask
        self._ledger.cards = controller.placing.cards
        return watch, controller

    def _rented_loop(self, made: Deployment, watch: LoadWatch, policy: Policy, save: Save) -> Controller:
        """The loop over rented machines."""
        roster = self.engine.roster
        machines = RentedMachines(self.nodes, roster, watch.observer)
        landlord = Landlord(made, machines, lambda plan: self.nodes.book.parts.update(plan.parts))
        controller = Controller(watch, policy, machines, self.event, save, landlord.answer)
        controller.plan = self.record.plan
        seating = policy.config.seating
        if policy.config.mode != "static" and seating is not None:
            roster.by_actual = True
            roster.shares = {(role, gpu): n for gpu, roles in seating.workers.items() for role, n in roles.items()}
            roster.bundles = {(roles, gpu): n for gpu, some in seating.shared.items() for roles, n in some.items()}
        return controller


def tls_of(spec: Spec) -> ssl.SSLContext | None:
    """TLS with the spec's certificate; None without one. Raises OSError when the files cannot be read."""
    if not spec.api.certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(spec.api.certificate, spec.api.private_key)
    return context


def ledger_limits(spec: Spec) -> Limits:
    """The ledger's bounds, as far as the spec sets them."""
    batch = spec.pipeline.batch
    return Limits(batch=batch.max, batch_wait_s=batch.wait_s or 0.0)


def model_infos(spec: Spec, created_at: float) -> list[ModelInfo]:
    """The spec's models with what is known of them without weights."""
    return [ModelInfo(m.name, m.id, card_of(spec.source(m)), created_at, m.priority) for m in spec.models]


def sources_of(spec: Spec, models: list[ModelInfo]) -> dict[Role, ModelSource]:
    """What the workers of each role are told to load."""
    stages = {model.name: model.card.stages for model in models}
    return {Role(m.name, stage): spec.source(m, stage) for m in spec.models for stage in stages[m.name]}


def hold_lease(where: state.ServicePaths) -> int | None:
    """Become the one that launches and releases: a lock that goes with its process. None: another has it."""
    lease = os.open(where.lease, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lease)
        return None
    return lease


def main() -> None:
    """Entry point of the process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    where = state.ServicePaths(Path(sys.argv[1]))
    os.umask(0o077)
    lease = hold_lease(where)
    if lease is None:
        log.error("another head of %s runs", where.name)
        sys.exit(UnhealthyError.exit_code)
    use_fast_loop()
    collect_rarely()

    async def serve() -> None:
        await Head(where).run()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
