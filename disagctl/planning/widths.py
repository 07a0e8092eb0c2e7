"""On how many GPUs a plan has the workers of each stage, and whether that can be started."""

from collections.abc import Iterable
from typing import Final, Protocol

from disagctl.errors import InfeasibleError
from stages.models.cards import SPREADABLE

_NEXT: Final = "plan it again with stages.STAGE.gpus_per_replica: 1, or let up plan: it takes only what can be started"


class PlannedRow(Protocol):
    """A row of a plan, made or saved."""

    @property
    def model(self) -> str:
        """Whose stage it is."""

    @property
    def stage(self) -> str:
        """One, or several of a bundle: ``encode+decode``."""

    @property
    def gpus_per_replica(self) -> int:
        """0 where there are none."""


def widths(rows: Iterable[PlannedRow]) -> dict[tuple[str, str], int]:
    """GPUs a worker, by model and stage, where there are any. Raises InfeasibleError for what workers cannot spread, and for a
    stage planned in two ways."""
    found: dict[tuple[str, str], int] = {}
    for row in rows:
        gpus = row.gpus_per_replica
        if gpus > 1 and row.stage != SPREADABLE:
            raise InfeasibleError(
                f"the plan has {row.stage} on {gpus} GPUs a replica", code="gpus_per_replica",
                why=f"workers spread nothing but {SPREADABLE} over several GPUs",
                next=_NEXT.replace("STAGE", row.stage.split("+")[0]),
            )  # fmt: skip
        for stage in row.stage.split("+") if gpus else ():
            if found.setdefault((row.model, stage), gpus) != gpus:
                raise InfeasibleError(
                    f"the plan has {stage} on {found[row.model, stage]} and on {gpus} GPUs a replica", code="two_widths",
                    why="in this version all workers of a stage have as many",
                    next=f"name one: stages.{stage}.gpus_per_replica",
                )  # fmt: skip
    return found
