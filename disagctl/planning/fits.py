"""Which stages may run on which type of GPU, and how fast: for the control loop, from what the planner was asked."""

from collections import defaultdict

from msgspec.structs import replace

from disagctl.planning.renter import precisions_of
from planner.domain import Prediction, Role, Shape
from planner.facts import Book
from planner.facts.perf import LEAST_LOAD_S, LOAD_GIB_PER_S
from planner.plan import PlanRequest
from planner.plan.options import Option, enumerate_options
from planner.run.fleet import Bundle
from planner.run.seating import Fits, Seating, Together


class Known:
    """Of a service on rented machines. ``request``: with each stage's precision settled (:func:`renter.as_planned`)."""

    def __init__(self, request: PlanRequest) -> None:
        self._book = Book(request.profiles, request.facts, request.gpus)
        self._precisions = precisions_of(request)
        self._widths = {Role(rule.model, rule.stage): rule.gpus for rule in request.rules if rule.gpus}
        self.fits: Fits = fits_of(request, self._book)
        self.together = {name: self._together(name, request) for name in self.fits}

    def seconds(self, role: Role, accelerator: str, shape: Shape) -> float | None:
        """Of one request; None: nothing is known."""
        found = self._predict(role, accelerator, shape)
        return found.seconds if found is not None else None

    def _together(self, accelerator: str, request: PlanRequest) -> Together:
        """What one GPU may hold: the memory of each role for the largest of its requests, of the roles that may run there."""
        needs: dict[Role, float] = {}
        for role in (bundle[0] for bundle in self.fits[accelerator] if len(bundle) == 1):
            shapes = [one.shape for one in request.workload.classes if one.model == role.model]
            precision = self._precisions.get(role, "")
            each = [self._book.predict(role.model, role.stage, accelerator, s, 1, precision) for s in shapes]
            peaks = [found.peak_gib if found is not None else 0.0 for found in each]
            if peaks and min(peaks) > 0:
                needs[role] = max(peaks)
        return Together(self.fits[accelerator], needs, self._book.gpus[accelerator].usable_gib)

    def load_s(self, role: Role, accelerator: str, shape: Shape) -> float:
        """Measured, or derived from the weights; ten seconds at least where it is derived."""
        found = self._predict(role, accelerator, shape)
        if found is None or (found.load_s is None and found.weights_gib is None):
            return LEAST_LOAD_S
        derived = max((found.weights_gib or 0.0) / LOAD_GIB_PER_S, LEAST_LOAD_S)
        return found.load_s if found.load_s is not None else derived

    def _predict(self, role: Role, accelerator: str, shape: Shape) -> Prediction | None:
        """On as many GPUs as a worker has."""
        gpus, precision = self._widths.get(role, 1), self._precisions.get(role, "")
        return self._book.predict(role.model, role.stage, accelerator, shape, gpus, precision)


def fits_of(request: PlanRequest, book: Book) -> dict[str, frozenset[Bundle]]:
    """What a GPU of each type may hold: memory, timings and the spec's resources allow it for every shape of the workload, on
    every offer of the type."""
    alone = replace(request, max_gpus_per_replica=1, singles=True)
    universe = enumerate_options(alone, book)
    found: dict[str, set[Bundle]] = defaultdict(set)
    for option in universe.options:
        whole = set(option.served) >= set(universe.classes_of[option.model])
        if whole and option.gpus == 1 and _everywhere(option, request):
            found[option.gpu].add(tuple(Role(option.model, stage) for stage in option.stages))
    return {name: frozenset(bundles) for name, bundles in found.items()}


def _everywhere(option: Option, request: PlanRequest) -> bool:
    """Whether any offer of the GPU will do: workers change places among the machines of a type."""
    return all(
        option.spot in {None, offer.spot} and (option.kinds is None or offer.kind in option.kinds)
        for offer in request.offers
        if offer.accelerator == option.gpu
    )


def outside(fits: Fits, seating: Seating) -> str:
    """The first seat of a plan that ``fits`` does not have, in words; "" when there is none."""
    for name, roles in seating.alone.items():
        for role, count in roles.items():
            if count and (role,) not in fits.get(name, ()):
                return f"{role} on {name}"
    for name, bundles in seating.shared.items():
        for bundle, count in bundles.items():
            if count and not any(set(bundle) <= set(one) for one in fits.get(name, ())):
                return f"{'+'.join(role.stage for role in bundle)} on {name}"
    return ""
