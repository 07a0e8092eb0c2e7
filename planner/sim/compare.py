"""One scenario, every policy: what each makes of the same requests on the same machines."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from planner.run.decisions import Mode, SetCounts
from planner.sim.baselines import (
    Oracle,
    best_for,
    expected,
    merit,
    planned,
    run_static,
    run_still,
    schedule_of,
    set_counts,
    statics,
)
from planner.sim.report import Run
from planner.sim.scenario import Scenario
from planner.sim.world import Schedule, Tools, World

WARM_UP: Final = 20  # requests that the fleet was laid out for when the trace begins
POLICIES: Final[dict[str, Mode]] = {"dynamic": "hybrid", "reactive": "reactive", "predict": "predict"}


class Comparison(msgspec.Struct):
    """Runs in order: dynamic first. ``best_static`` is best over the whole trace."""

    scenario: Scenario
    runs: list[Run]

    def named(self, name: str) -> Run | None:
        """The run of that name."""
        return next((run for run in self.runs if run.name == name), None)

    @property
    def best_static(self) -> Run | None:
        """Of all ratios, the one with most requests over the whole trace."""
        still = [run for run in self.runs if run.name.startswith("static:")]
        return max(still, key=lambda run: merit(run, self.scenario), default=None)

    @property
    def simulated_s(self) -> float:
        """Virtual seconds of all runs shown."""
        return sum(run.end_s for run in self.runs)

    def over(self, other: Run | None) -> float | None:
        """The dynamic policy's requests over another's."""
        mine = self.named("dynamic")
        if mine is None or other is None or not other.requests:
            return None
        return mine.requests / other.requests


def run_policy(scenario: Scenario, name: str, mode: Mode, tools: Tools | None = None) -> tuple[Run, Schedule]:
    """A policy's run, and what it did as a schedule. It begins laid out for the trace's first requests."""
    rows = scenario.trace.rows[:WARM_UP]
    first = best_for(scenario, rows)
    config = msgspec.structs.replace(scenario.policy, mode=mode, workload=expected(rows, scenario.slo_s))
    if config.fits is not None:
        config = msgspec.structs.replace(config, seating=first.seating)
    run = World(msgspec.structs.replace(scenario, policy=config), name, [(0.0, first)], tools).run()
    return run, schedule_of(run, first)


def compare(
    scenario: Scenario,
    names: Sequence[str] = (*POLICIES, "static", "oracle"),
    tools: Tools | None = None,
    on_run: Callable[[str], None] = lambda name: None,
) -> Comparison:
    """Run them all. ``names``: of POLICIES, ``static`` (every ratio), ``static:1:6:1`` (one), ``oracle``."""
    return Comparison(scenario, list(_runs(scenario, names, tools, on_run)))


def _runs(
    scenario: Scenario, names: Sequence[str], tools: Tools | None, on_run: Callable[[str], None]
) -> Iterator[Run]:
    known: list[tuple[Run, Schedule]] = []
    for name in [name for name in POLICIES if name in names or (name == "dynamic" and "hybrid" in names)]:
        on_run(name)
        found = run_policy(scenario, name, POLICIES[name], tools)
        known.append(found)
        yield found[0]
    ratios = statics(scenario) if "static" in names or "oracle" in names else []
    own = planned(scenario) if "static" in names or "oracle" in names else None
    if own is not None:
        on_run(own[0])
        run = run_still(scenario, *own)
        known.append((run, [(0.0, own[1])]))
        if "static" in names:
            yield run
    asked = [tuple(map(int, name.split(":")[1:])) for name in names if name.startswith("static:")]
    for counts in dict.fromkeys([*ratios, *asked]):
        on_run("static:" + ":".join(map(str, counts)))
        run = run_static(scenario, counts)
        first: SetCounts = set_counts(scenario, counts)
        known.append((run, [(0.0, first)]))
        if "static" in names or counts in asked:
            yield run
    if "oracle" in names and not scenario.policy.elastic:
        on_run("oracle")
        yield Oracle(scenario, known).search()
