"""Short names for a worker core and what goes in and out of it."""

from typing import Any

from planner.domain import Role, TaskRef
from stages import instructions as do
from stages import protocol as wire
from stages.core import WorkerCore

ENCODE, DENOISE = Role("m", "encode"), Role("m", "denoise")
SOURCE = wire.ModelSource("m", "synthetic")
ARTIFACT = wire.Artifact("image/png", 3, 0, b"png")


def ref(name: str, epoch: int = 1) -> TaskRef:
    return TaskRef(name, "denoise", epoch)


def offer(name: str, *, inline: bool = False) -> wire.Offer:
    route: wire.Route = wire.InlineRoute(b"") if inline else wire.ZmqRoute("tcp://n1:1", "key")
    return wire.Offer(f"{name}/encode/1", b"", (), (route,))


def assign(name: str, *, inline: bool = False, epoch: int = 1) -> wire.Assign:
    return wire.Assign(wire.Task(ref(name, epoch), "m", 1, b"{}", offer(name, inline=inline)))


def ready(*, synchronous: bool = False, light: bool = False) -> WorkerCore:
    core = WorkerCore("n1.m.denoise.0.1", "n1", 1, synchronous=synchronous)
    assert core.message(wire.SetRole(DENOISE, SOURCE)) == [do.Load(DENOISE, SOURCE)]
    assert core.loaded(DENOISE, 2.0, 0, light=light) == [do.Send(wire.RoleReady(DENOISE, 2.0))]
    return core


def kinds(instructions: list[do.Instruction]) -> list[str]:
    """``Fetch a``, ``Compute a``, ``Send Started`` …: enough to read."""
    out = []
    for it in instructions:
        name: Any = ""
        match it:
            case do.Send(message=message):
                name = type(message).__name__
            case do.Fetch(task=task) | do.Compute(task=task):
                name = task.ref.request
            case do.Stop(ref=of) | do.Publish(ref=of):
                name = of.request
            case do.Forget(key=key):
                name = key.partition("/")[0]
            case do.Load(role=role):
                name = role.stage
        out.append(f"{type(it).__name__} {name}".strip())
    return out


def hello(core: WorkerCore) -> tuple[dict[str, bool], list[str]]:
    """(unfinished tasks: started?, held outputs)."""
    said = core.hello()
    return {task.ref.request: task.started for task in said.tasks}, [held.ref.request for held in said.held]


def finish(core: WorkerCore, name: str) -> list[do.Instruction]:
    core.computed(ref(name), 1.0)
    return core.published(ref(name), offer(name), None)
