"""Measuring on rented GPUs, one machine after the other: ask, wait, fetch the rows, release, whatever happens."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Final

import msgspec

from disagctl.clock import wall_s
from disagctl.entropy import token_bytes
from disagctl.errors import CredentialsError, DisagctlError, InfeasibleError, OverBudgetError, UnexpectedError
from disagctl.planning.catalogs import UNPRICED, canonical_cloud, load_catalog
from disagctl.profiling.errand import Errand, Result, result_in
from disagctl.profiling.leases import Lease, Rental, open_lease
from disagctl.provision.base import NodeHandle, NodeRequest, Provisioner
from planner.domain import Offer
from planner.facts.names import canonical
from planner.plan.market import in_infra

SERVICE: Final = "profile"
OFFERS: Final = 5  # asked for a GPU, one after the other
LOG_LINES: Final = 1000
START_S: Final = 1800.0  # until a machine runs the errand: install, and a model's weights besides
Say = Callable[[str], None]
Rent = Callable[[str, str], Provisioner]  # (service, uid)


class Wish(msgspec.Struct, frozen=True):
    """What to rent and what to do there. ``offers``: of each GPU, the cheapest first. ``limit_s``: of measuring on one."""

    offers: dict[str, tuple[Offer, ...]]
    argv: tuple[str, ...]
    limit_s: float
    folders: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()

    @property
    def most_usd(self) -> float:
        """What it can cost at the most, if every machine takes all its time."""
        dearest = sum(max(one.usd_per_hour for one in some) for some in self.offers.values())
        return dearest * (START_S + self.limit_s) / 3600


def find_offers(
    infra: Sequence[str], gpus: Sequence[str], catalog: str | None, budget: float | None
) -> dict[str, tuple[Offer, ...]]:
    """On-demand offers of each GPU within ``budget`` USD an hour. Raises InfeasibleError (4) or OverBudgetError (5)."""
    places = tuple("/".join([canonical_cloud(place.split("/")[0]), *place.split("/")[1:2]]) for place in infra)
    priced = load_catalog(catalog, places).offers
    found: dict[str, tuple[Offer, ...]] = {}
    for gpu in gpus:
        name = canonical(gpu)
        if name is None:
            raise InfeasibleError(f"{gpu!r} is no GPU that is known here", next="SkyPilot's name, such as H100 or L4")
        mine = [o for o in priced if o.accelerator == name and not o.spot and in_infra(o, places) and o.max_nodes != 0]
        mine = mine or [own for place in places for own in _own(place, name)]
        if not mine:
            there = sorted({o.accelerator for o in priced if not o.spot and in_infra(o, places)})
            raise InfeasibleError(
                f"no price is known of {name} on {', '.join(infra)}", why=f"known there: {', '.join(there) or 'nothing'}",
                next="another --infra, or prices with --catalog (sky: SkyPilot's own)", code="no_offers",
            )  # fmt: skip
        fewest = min(offer.count for offer in mine)
        mine = sorted((o for o in mine if o.count == fewest), key=lambda o: (o.usd_per_hour, o.region, o.instance_type))
        affordable = [offer for offer in mine if budget is None or offer.usd_per_hour <= budget]
        if not affordable:
            raise OverBudgetError(
                f"the cheapest {name} costs ${mine[0].usd_per_hour:.2f}/h, the budget is ${budget:.2f}/h",
                next=f"--budget {mine[0].usd_per_hour:.2f}",
            )
        found[name] = tuple(affordable[:OFFERS])
    return found


def _own(place: str, gpu: str) -> list[Offer]:
    """A machine of the user's own, which no catalog has to price."""
    cloud, _, region = place.partition("/")
    return [Offer(cloud, region, "node", gpu, 1, spot=False, usd_per_hour=0.0)] if cloud in UNPRICED else []


async def measure(wish: Wish, rent: Rent, say: Say, take: Callable[[str, Result, Offer], None]) -> Lease:
    """Each GPU in turn; ``take`` gets what came of it. Raises DisagctlError; nothing stays rented, or TeardownError says so."""
    lease = open_lease(token_bytes(4).hex(), wall_s())
    provisioner = rent(SERVICE, lease.uid)
    for number, (gpu, offers) in enumerate(wish.offers.items(), 1):
        rental = Rental(f"p{number}", token_bytes(4).hex(), offers[0], wall_s())
        lease.rentals.append(rental)
        lease.save()  # a row before a machine
        boot = msgspec.json.encode(Errand(wish.argv, wish.limit_s))
        request = NodeRequest(
            rental.node,
            rental.intent,
            SERVICE,
            lease.uid,
            offers,
            boot,
            wish.folders,
            wish.secrets,
            script="profile.sh",
        )
        result = await _on(provisioner, request, lease, rental, wish.limit_s, say)
        take(gpu, result, rental.offer)
    return lease


async def _on(
    provisioner: Provisioner, request: NodeRequest, lease: Lease, rental: Rental, limit_s: float, say: Say
) -> Result:
    """One machine. It is released in the end, however it ends: also on Ctrl-C, which waits for that."""
    handle = NodeHandle(request.node, "launching", request.intent)
    say(f"asking for {request.offers[0]} at ${request.offers[0].usd_per_hour:.2f}/h")
    try:
        async with asyncio.timeout(START_S + limit_s):
            handle = await provisioner.launch(request)
            return await _result(provisioner, handle, rental, say)
    except TimeoutError as err:
        raise UnexpectedError(
            f"nothing was measured on {request.offers[0].accelerator}", why=f"not done after {START_S + limit_s:.0f} s",
            next="give it more with --time-limit", code="profile_timeout",
        ) from err  # fmt: skip
    finally:
        say(f"releasing {request.node}")
        await _surely(provisioner.release(handle))
        rental.ended_at = wall_s()
        lease.save()
        say(f"released: ${rental.usd(rental.ended_at):.2f}")


async def _surely(releasing: Coroutine[object, object, None]) -> None:
    """Wait for it, whoever interrupts; the interruption goes on afterwards."""
    task = asyncio.create_task(releasing)
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as err:
            interrupted = err
    await task
    if interrupted is not None:
        raise interrupted


async def _result(provisioner: Provisioner, handle: NodeHandle, rental: Rental, say: Say) -> Result:
    was = ""
    while True:
        handle = (await provisioner.list([handle]))[0]
        if handle.offer is not None and not handle.offer.usd_per_hour:
            handle = msgspec.structs.replace(handle, offer=None)  # SkyPilot knows no price of one's own machines
        rental.offer = handle.offer or rental.offer
        if handle.state != was:
            was = handle.state
            say(f"{handle.node}: {'measuring' if was == 'up' else was}")
        if handle.state in {"failed", "gone"}:
            raise _lost(handle, rental)
        if handle.state == "up":
            found = result_in(await provisioner.logs(handle, LOG_LINES))
            if found is not None:
                return found
        await asyncio.sleep(provisioner.period_s)


def _lost(handle: NodeHandle, rental: Rental) -> DisagctlError:
    what = f"nothing was measured on {rental.offer.accelerator}"
    if handle.failure in {"no_capacity", "impossible"}:
        return InfeasibleError(what, why=handle.why, next="another --infra, or later", code=handle.failure)
    if handle.failure in {"credentials", "quota"}:
        return CredentialsError(what, why=handle.why, next="sky check", code=handle.failure)
    return UnexpectedError(what, why=handle.why or "the machine is gone", code="node_lost")
