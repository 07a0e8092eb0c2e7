"""Faults, drawn from the world's seed: what RELIABILITY lists, at any moment, also several at once."""

from collections.abc import Callable
from functools import partial

from planner.domain import Role
from tests.engine.pipeline import Proc
from tests.engine.world import World

BEGIN_S, END_S = 3.0, 35.0


def draw(world: World, *, most: int = 7) -> None:
    """Schedule up to ``most`` faults between BEGIN_S and END_S."""
    rng = world.clockwork.rng
    world.clockwork.at(BEGIN_S, lambda: _set_faulty(world, faulty=True))
    world.clockwork.at(END_S, lambda: _set_faulty(world, faulty=False))
    for _ in range(rng.randint(0, 2)):
        world.clockwork.at(rng.uniform(BEGIN_S, END_S / 2), partial(pause_some, world))
    for _ in range(rng.randint(1, most)):
        fault = rng.choices([f for f, _ in FAULTS], [weight for _, weight in FAULTS])[0]
        world.clockwork.at(rng.uniform(BEGIN_S, END_S), partial(fault, world))


def _set_faulty(world: World, *, faulty: bool) -> None:
    world.faulty = faulty
    if not faulty:
        world.slow = 1.0
        for channel in (*world.to_head.values(), *world.from_head.values()):
            channel.loss, channel.latency_s = 0.0, 0.0005


def _victim(world: World) -> Proc | None:
    """A worker that runs, and has nothing in hand that has failed twice: the third time would be a proper dead letter."""
    alive = [p for p in world.procs.values() if p.alive and not p.stopped and _bearable(world, p)]
    return world.clockwork.rng.choice(alive) if alive else None


def _bearable(world: World, proc: Proc) -> bool:
    requests = world.head.ledger.requests if world.head else {}
    mine = [requests[ref.request] for ref in proc.core.tasks if ref.request in requests]
    return all(len(request.evidence) < 2 for request in mine)


def kill(world: World) -> None:
    if (proc := _victim(world)) is not None:
        world.say(f"kill -9 {proc.id}")
        proc.die(-9)


def kill_computing(world: World) -> None:
    busy = [p for p in world.procs.values() if p.alive and p.computing and _bearable(world, p)]
    if busy:
        proc = world.clockwork.rng.choice(busy)
        world.say(f"kill -9 {proc.id}, computing {proc.computing}")
        proc.die(-9)


def kill_role(world: World) -> None:
    """Every worker of one stage at once."""
    role = world.clockwork.rng.choice(list(world.wanted))
    for proc in [p for p in world.procs.values() if p.alive and p.core.role == role and _bearable(world, p)]:
        world.say(f"kill -9 {proc.id}, with all of {role}")
        proc.die(-9)


def freeze(world: World) -> None:
    proc = _victim(world)
    if proc is not None:
        seconds = world.clockwork.rng.choice((2.0, 6.0, 30.0))
        world.say(f"SIGSTOP {proc.id} for {seconds:g} s")
        proc.stop()
        world.until(seconds, proc.go_on)


def wedge(world: World) -> None:
    """Alive for its agent, silent for the head: it is replaced after HANG_S."""
    proc = _victim(world)
    if proc is not None and world.head is not None and proc.id in world.head.ledger.workers:
        world.say(f"{proc.id} hangs")
        proc.stopped = proc.wedged = True


def stall(world: World) -> None:
    """Its computing thread hangs."""
    proc = _victim(world)
    if proc is not None and proc.computing:
        world.say(f"{proc.id} stalls, computing {proc.computing}")
        proc.stalled = True


def crash_head(world: World) -> None:
    if world.clockwork.rng.random() < 0.3:
        world.version += 1
        world.say("the spec's model options change")
    if world.width:
        world.width = world.clockwork.rng.randint(1, 4)
        world.say(f"the spec has {world.width} GPUs a worker")
    world.crash_head()


def sleep_head(world: World) -> None:
    if world.head is not None:
        seconds = world.clockwork.rng.choice((1.0, 4.0, 20.0, 90.0))
        world.say(f"SIGSTOP the head for {seconds:g} s")
        world.until(seconds, world.head.wake)
        world.head.asleep = True


def lose_frames(world: World) -> None:
    """Some links lose a part of their frames for a while, both ways."""
    rng = world.clockwork.rng
    loss, peers = rng.choice((0.01, 0.05, 0.3)), [p for p in world.to_head if rng.random() < 0.5]
    world.say(f"{loss:.0%} of the frames of {len(peers)} links are lost")
    _for_a_while(world, peers, lambda peer: _set_loss(world, peer, loss), lambda peer: _set_loss(world, peer, 0.0))


def delay_frames(world: World) -> None:
    rng = world.clockwork.rng
    latency, peers = rng.choice((0.02, 0.2, 1.0)), [p for p in world.to_head if rng.random() < 0.5]
    world.say(f"{len(peers)} links get slow: {latency:g} s")
    _for_a_while(
        world, peers, lambda peer: _set_latency(world, peer, latency), lambda peer: _set_latency(world, peer, 0.0005)
    )


def cut(world: World) -> None:
    """A link is cut; what the peer sends waits or is lost, what the head sends is lost."""
    rng = world.clockwork.rng
    peer = rng.choice(list(world.to_head))
    proc = world.procs.get(peer)
    if proc is not None and not _bearable(world, proc):
        return
    world.say(f"the link of {peer} is cut")
    world.to_head[peer].shut_down(keeps=rng.random() < 0.5)
    world.from_head[peer].shut_down(keeps=False)
    seconds = rng.choice((0.5, 3.0, 20.0))
    world.until(seconds, lambda: _mend(world, peer))


def _mend(world: World, peer: str) -> None:
    world.from_head[peer].open_up()
    if world.head is not None:
        world.to_head[peer].open_up()


def lose_node(world: World) -> None:
    if not world.nodes:
        return
    node = world.clockwork.rng.choice(list(world.nodes.values()))
    if node.alive and all(_bearable(world, proc) for proc in node.procs.values()):
        world.say(f"node {node.id} is lost")
        node.lose()


def lose_spot_node(world: World) -> None:
    """With notice, or with one that is lost on the way or comes too late."""
    if not world.nodes:
        return
    node = world.clockwork.rng.choice(list(world.nodes.values()))
    seconds = world.clockwork.rng.choice((0.5, 3.0, 12.0))
    world.say(f"node {node.id} will be taken away in {seconds:g} s")
    node.notice()

    def lose() -> None:
        if node.alive:
            if all(_bearable(world, proc) for proc in node.procs.values()):
                world.say(f"node {node.id} is taken away")
                node.lose()
            else:
                world.until(1.0, lose)

    world.until(seconds, lose)


def replay(world: World) -> None:
    rng = world.clockwork.rng
    world.replayed = True
    for channel in (*world.to_head.values(), *world.from_head.values()):
        if rng.random() < 0.3:
            channel.replay()


def slow_stage(world: World) -> None:
    world.say("the last stage gets 20 times slower")
    world.slow = 20.0


def cancel_some(world: World) -> None:
    for item in world.clockwork.rng.sample(sorted(world.natures), 3):
        world.say(f"cancel {item}")
        world.cancel(item)


def pause_some(world: World) -> None:
    """Whatever is out with workers, paused; often again and again."""
    head, rng = world.head, world.clockwork.rng
    if head is None or head.asleep:
        return
    leased = sorted(request.id for request in head.ledger.requests.values() if request.lease is not None)
    for item in rng.sample(leased, min(3, len(leased))):
        if head.ledger.pause(item):
            world.say(f"pause {item}")
    head.engine.act()
    head.turn_over()
    if rng.random() < 0.8:
        world.clockwork.after(rng.choice((0.05, 0.4, 1.5)), partial(pause_some, world))


def kill_holder(world: World) -> None:
    """A worker that holds a snapshot."""
    requests = world.head.ledger.requests.values() if world.head is not None else ()
    holders = sorted({request.snapshot.worker for request in requests if request.snapshot is not None})
    for proc in (world.procs[name] for name in holders[:1] if name in world.procs):
        if proc.alive and _bearable(world, proc):
            world.say(f"kill -9 {proc.id}, which holds a snapshot")
            proc.die(-9)


def scale(world: World) -> None:
    rng = world.clockwork.rng
    role: Role = rng.choice(list(world.wanted))
    if world.head is not None and not world.head.asleep:
        world.wanted[role] = rng.randint(1, 3)
        world.say(f"{role} is scaled to {world.wanted[role]}")
        world.head.scale()


def rebalance(world: World) -> None:
    """A worker of one stage is to become one of another, and often another soon after."""
    rng = world.clockwork.rng
    rich = [role for role, count in world.wanted.items() if count > 1]
    if world.head is None or world.head.asleep or not rich:
        return
    giver = rng.choice(rich)
    taker = rng.choice([role for role in world.wanted if role != giver])
    world.wanted[giver] -= 1
    world.wanted[taker] += 1
    world.say(f"one of {giver} is to become {taker}")
    world.head.scale()
    if rng.random() < 0.6:
        world.clockwork.after(rng.choice((0.01, 0.3, 1.0, 3.0)), partial(rebalance, world))


def kill_switching(world: World) -> None:
    """Between two roles."""
    rebalance(world)
    world.clockwork.after(world.clockwork.rng.uniform(0.0, 2.0), partial(_kill_switching, world))


def _kill_switching(world: World) -> None:
    workers = world.head.roster.workers.values() if world.head else ()
    between = [world.procs[w.id] for w in workers if w.phase == "switching" and w.id in world.procs]
    for proc in between:
        if proc.alive and _bearable(world, proc):
            world.say(f"kill -9 {proc.id}, which switches")
            proc.die(-9)


def _for_a_while(world: World, peers: list[str], begin: Callable[[str], None], end: Callable[[str], None]) -> None:
    for peer in peers:
        begin(peer)
        world.clockwork.after(world.clockwork.rng.uniform(1.0, 10.0), partial(end, peer))


def _set_loss(world: World, peer: str, loss: float) -> None:
    world.to_head[peer].loss = world.from_head[peer].loss = loss


def _set_latency(world: World, peer: str, latency_s: float) -> None:
    world.to_head[peer].latency_s = world.from_head[peer].latency_s = latency_s


Fault = Callable[[World], None]
FAULTS: list[tuple[Fault, int]] = [
    (kill, 3),
    (kill_computing, 3),
    (kill_role, 1),
    (freeze, 3),
    (wedge, 1),
    (stall, 1),
    (crash_head, 3),
    (sleep_head, 1),
    (lose_frames, 3),
    (delay_frames, 2),
    (cut, 3),
    (lose_node, 1),
    (lose_spot_node, 2),
    (replay, 2),
    (slow_stage, 1),
    (cancel_some, 2),
    (scale, 2),
    (rebalance, 4),
    (kill_switching, 2),
    (pause_some, 6),
    (kill_holder, 3),
]
