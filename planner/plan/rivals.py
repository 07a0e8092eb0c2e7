"""Other ways to serve the same load, solved under the same rules: what each would cost and why it lost."""

import math
from collections.abc import Callable, Iterator

import msgspec

from planner.plan.build import Keep
from planner.plan.engine import Found, Scene, attempt, search
from planner.plan.guess import guess, prices
from planner.plan.level import rules_of
from planner.plan.options import Option
from planner.plan.result import Alternative

EACH_S = 1.0  # solver time for one alternative
MOST_TYPES = 3  # single GPU types tried, the most promising first

Rival = tuple[str, Found | None, str]


def rivals(scene: Scene, best: Found) -> Iterator[Rival]:
    """(name, solution, remark) for every alternative."""
    whole = dict(scene.universe.stages)
    types = sorted({option.gpu for option in scene.universe.options})

    def monolith(option: Option, _k: int) -> bool:
        return option.stages == whole[option.model]

    def apart(option: Option, _k: int) -> bool:
        return len(option.stages) == 1

    yield "runner-up", *_runner_up(scene, best)
    yield "one GPU type", *_best_type(scene, best, types, lambda _o, _k: True)
    yield "one GPU type per stage", *_per_stage(scene, best, apart)
    if scene.universe.request.bundles or not scene.universe.request.singles:
        yield "whole pipeline, one GPU type", *_best_type(scene, best, types, monolith)
        yield "whole pipeline, mixed GPU types", _solve(scene, best, monolith), ""
    yield "every stage apart", _solve(scene, best, apart), ""
    yield "cheapest per class (greedy)", *_greedy(scene, best)


def describe(name: str, found: Found | None, remark: str, best: Found) -> Alternative:
    """A rival as a line of the plan."""
    if found is None:
        return Alternative(name, None, False, remark or "no such plan within the caps and the SLO")
    more = (found.usd_per_hour - best.usd_per_hour) / max(best.usd_per_hour, 0.01)  # own machines may cost nothing
    p95 = max(found.outlook.p95_s.values())
    verdict = (
        f"costs {more:+.1%}" if abs(more) > 0.0005 else "costs the same: the plan is of this kind, or ties with it"
    )
    return Alternative(name, found.usd_per_hour, True, f"{verdict}{'; ' if remark else ''}{remark}", p95)


def _solve(scene: Scene, best: Found, keep: Keep) -> Found | None:
    """Under the plan's own rules first, else under others. Time is bounded apart from the plan's."""
    part = msgspec.structs.replace(scene, limit_s=scene.spent_s + min(EACH_S, scene.left_s))
    found = attempt(part, rules_of(scene.universe, best.level, scene.quick), best.level, keep)
    if found is None or scene.small:
        other = search(part, keep, most=3)
        found = min((one for one in (found, other) if one is not None), key=lambda one: one.usd_per_hour, default=None)
    scene.spent_s, scene.rounds = part.spent_s, part.rounds
    return found


def used(found: Found) -> list[tuple[str, str, str]]:
    """(model, bundle, gpu) in use."""
    values = found.solution.values
    return list(
        dict.fromkeys((s.option.model, s.option.bundle, s.option.gpu) for s in found.model.sites if values[s.count] > 0)
    )


def _runner_up(scene: Scene, best: Found) -> tuple[Found | None, str]:
    """The cheapest plan that does without one of the plan's choices."""
    winner: tuple[Found | None, str] = (None, "every choice of the plan is needed")
    for model, bundle, gpu in used(best)[:3]:

        def without(option: Option, _k: int, banned: tuple[str, str, str] = (model, bundle, gpu)) -> bool:
            return (option.model, option.bundle, option.gpu) != banned

        found = _solve(scene, best, without)
        if found is not None and (winner[0] is None or found.usd_per_hour < winner[0].usd_per_hour):
            winner = (found, f"without {bundle} on {gpu}: {_mix(found)}")
    return winner


def _mix(found: Found) -> str:
    return ", ".join(f"{bundle} on {gpu}" for _, bundle, gpu in used(found)[:4])


def _best_type(scene: Scene, best: Found, types: list[str], base: Keep) -> tuple[Found | None, str]:
    rules = rules_of(scene.universe, best.level, scene.quick)

    def only(gpu: str) -> Callable[[Option, int], bool]:
        return lambda option, k: option.gpu == gpu and base(option, k)

    ranked = sorted((guess(scene.universe, scene.market, rules, only(gpu)), gpu) for gpu in types)
    winner: tuple[Found | None, str] = (None, "no single type can hold or carry it")
    for guessed, gpu in ranked[:MOST_TYPES]:
        if guessed == math.inf or (winner[0] is not None and guessed > winner[0].usd_per_hour):
            continue
        found = _solve(scene, best, only(gpu))
        if found is not None and (winner[0] is None or found.usd_per_hour < winner[0].usd_per_hour):
            winner = (found, f"the best is {gpu}")
    return winner


def _per_stage(scene: Scene, best: Found, base: Keep) -> tuple[Found | None, str]:
    """Each stage on the one type with the cheapest request, weighted over classes."""
    price = prices(scene.market)
    classes = scene.universe.request.workload.classes
    cost: dict[tuple[str, str], dict[str, float]] = {}
    for option in scene.universe.options:
        wanted = [k for k in scene.universe.classes_of[option.model] if k in scene.quick]
        if len(option.stages) == 1 and option.gpu in price and all(k in option.served for k in wanted):
            usd = min(price[option.gpu].values()) * option.gpus
            total = sum(classes[k].rate_per_s * option.served[k].seconds * usd for k in wanted)
            mine = cost.setdefault((option.model, option.bundle), {})
            mine[option.gpu] = min(mine.get(option.gpu, math.inf), total)
    chosen = {key: min(by_gpu, key=lambda gpu, by=by_gpu: by[gpu]) for key, by_gpu in cost.items()}  # type: ignore[misc]
    remark = ", ".join(f"{bundle} on {gpu}" for (_, bundle), gpu in list(chosen.items())[:4])
    return _solve(scene, best, lambda o, k: base(o, k) and chosen.get((o.model, o.bundle)) == o.gpu), remark


def _greedy(scene: Scene, best: Found) -> tuple[Found | None, str]:
    """Each class, at each stage, on the GPU with its cheapest request."""
    price = prices(scene.market)
    choice: dict[tuple[int, str], tuple[float, int]] = {}
    for option in scene.universe.options:
        if len(option.stages) == 1 and option.gpu in price:
            usd = min(price[option.gpu].values()) * option.gpus
            for k, found in option.served.items():
                choice[k, option.bundle] = min(
                    choice.get((k, option.bundle), (math.inf, 0)), (found.seconds * usd, option.index)
                )
    picked = {(k, index) for (k, _), (_, index) in choice.items()}
    return _solve(
        scene, best, lambda option, k: (k, option.index) in picked
    ), "caps, whole nodes and cold pools are not its concern"
