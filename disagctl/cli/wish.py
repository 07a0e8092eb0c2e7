"""The spec, with what the command line says instead. Several verbs read it so."""

from pathlib import Path
from typing import TYPE_CHECKING

from disagctl.errors import UsageError

if TYPE_CHECKING:
    from disagctl.spec import Spec


def load(path: Path, infra: str | None, budget: float | None, catalog: str | None = None) -> "Spec":
    """Raises SpecError for the file and UsageError for the options."""
    from disagctl.spec import load_spec
    from disagctl.spec.infra import LOCAL, complaint
    from disagctl.spec.locate import CATALOGS, is_file

    names = [name.strip() for name in (catalog or "").split(",") if name.strip()]
    if catalog and is_file(catalog):  # its name may hold a comma
        names = [catalog]
    prices = [name if name in CATALOGS else str(Path(name).absolute()) for name in names]
    spec = load_spec(
        path, catalog=prices or None, infra=[LOCAL] if infra is not None else None
    )  # what stands there is not used
    if infra is not None:
        spec.infra = [place.strip() for place in infra.split(",") if place.strip()]
        wrong = complaint(spec.infra, spec.catalog)
        if wrong is not None:
            raise UsageError(f"--infra: {wrong[1]}", why=wrong[2])
    if budget is not None:
        if not 0 < budget < 1e9:
            raise UsageError("--budget is an amount of dollars an hour, more than nothing")
        spec.budget.max_usd_per_hour = budget
    return spec
