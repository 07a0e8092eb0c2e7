"""Runs of the co-serving simulation: the files of ``bench/workloads``, and one run of one contender at one point."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from planner.run.orders import DispatchConfig, Kind
from planner.run.policies import make
from planner.sim.coserve.laws import Laws, Profiles
from planner.sim.coserve.layouts import Fleet, Layout, fleet_of
from planner.sim.coserve.report import Summary, images, videos
from planner.sim.coserve.workload import CoWorkload, arrivals
from planner.sim.coserve.world import CoWorld

FOLDER: Final = Path(__file__).parent / "workloads"


class Contender(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A policy on a fleet. Baselines cannot pause and have the degree of their layout."""

    name: str
    layout: Layout
    policy: Kind
    degree: int = 1
    images: float = 0.0
    preempt: bool = False
    elastic: bool = False
    batch: bool = False
    placement: bool = False

    def config(self) -> DispatchConfig:
        """As a spec would say it."""
        return DispatchConfig(self.policy, self.preempt, self.elastic, self.batch, self.placement)


class Point(msgspec.Struct, frozen=True):
    """Where on the grid."""

    workload: str
    gpus: int
    load: float
    scale: float
    seed: int


class Outcome(msgspec.Struct, frozen=True):
    """What a contender made of a point."""

    point: Point
    contender: str
    attained: float
    images: float
    videos: float
    mean_s: float
    p95_s: float
    image_mean_s: float
    video_mean_s: float
    pauses: int
    most_pauses: int
    loads: int
    regroups: int
    unserved: int


@cache
def laws() -> Laws:
    """The GPU and the models."""
    return Laws(msgspec.convert(tomllib.loads((FOLDER / "profiles.toml").read_text()), Profiles))


@cache
def workload(name: str) -> CoWorkload:
    """One file."""
    return msgspec.convert(tomllib.loads((FOLDER / f"{name}.toml").read_text()), CoWorkload)


def baselines() -> list[Contender]:
    """Those that cannot pause."""
    rows = tomllib.loads((FOLDER / "baselines.toml").read_text())["baselines"]
    return msgspec.convert(rows, list[Contender])


def ours() -> list[Contender]:
    """The two policies, and each without one of its mechanisms."""
    full = {"preempt": True, "elastic": True, "batch": True, "placement": True}
    found = []
    for kind, switches in (
        ("genserve", ("preempt", "elastic", "batch")),
        ("trident", ("preempt", "elastic", "batch", "placement")),
    ):
        found.append(msgspec.convert({"name": kind, "layout": "shared", "policy": kind, **full}, Contender))
        for switch in switches:
            row = {"name": f"{kind} without {switch}", "layout": "shared", "policy": kind, **full, switch: False}
            found.append(msgspec.convert(row, Contender))
    return found


def run(point: Point, contender: Contender) -> Outcome:
    """One run."""
    work = workload(point.workload)
    gpus, whole = fleet_of(Fleet(contender.layout, contender.degree, contender.images), work, laws(), point.gpus)
    rows = arrivals(work, laws(), point.gpus, point.load, point.scale, point.seed)
    policy = make(contender.config(), laws())
    world = CoWorld(rows, gpus, policy, laws(), whole=whole, noise_sigma=work.noise_sigma, seed=point.seed)
    return _outcome(point, contender.name, world.run())


def _outcome(point: Point, name: str, found: Summary) -> Outcome:
    return Outcome(
        point, name, found.attainment(), found.attainment(images), found.attainment(videos), found.mean_s(), found.p95_s(),
        found.mean_s(images), found.mean_s(videos), found.pauses, max((one.pauses for one in found.served), default=0),
        found.loads, found.regroups, found.unserved,
    )  # fmt: skip
