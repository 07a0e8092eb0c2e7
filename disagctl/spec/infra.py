"""Where a service may run: ``local``, ``slurm``, ``aws``, ``aws/us-east-1`` …"""

import csv
import re
from pathlib import Path
from typing import Final

from disagctl.spec.locate import is_file
from disagctl.spec.nodes import Map, Problem, line_of, shown
from disagctl.spec.schema import Spec
from disagctl.spec.suggest import did_you_mean

LOCAL: Final = "local"
PLACES: Final = (
    LOCAL, "slurm", "kubernetes", "k8s", "ssh",
    "aws", "azure", "cudo", "do", "fluidstack", "gcp", "hyperbolic", "ibm", "lambda", "mithril", "nebius", "oci",
    "paperspace", "primeintellect", "runpod", "scp", "seeweb", "shadeform", "vast", "verda", "vsphere", "yotta",
)  # fmt: skip
_PLACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}(?:/[A-Za-z0-9_.:*@-]{1,128}){0,2}")
_CATALOG_BYTES: Final = 4 << 20


def check_infra(spec: Spec, tree: Map, *, check_files: bool) -> None:
    """Raises Problem for a place that neither we nor the catalog know, and for files that are not there."""
    for key, path in (("catalog", spec.catalog), ("profiles", spec.profiles)):
        if path is not None and check_files and not is_file(path):
            raise Problem(
                line_of(tree, key), f"there is no file {shown(path)}", "paths are relative to the spec's folder"
            )
    wrong = complaint(spec.infra, spec.catalog)
    if wrong is not None:
        index, what, why = wrong
        raise Problem(line_of(tree, "infra", index), what, why)


def complaint(infra: list[str], catalog: str | None) -> tuple[int, str, str] | None:
    """(which entry, what is wrong, what to write) of the first place that is none; None when all are well."""
    if not infra:
        return 0, "infra is empty", "write infra: local"
    known = [*PLACES, *_catalog_clouds(catalog)]
    for index, place in enumerate(infra):
        name = place.partition("/")[0].lower()
        if not _PLACE.fullmatch(place) or name not in known:
            why = did_you_mean(name, known) or "it is local, slurm, kubernetes or a cloud"
            return index, f"{shown(place)} is no infra known here", why
    if LOCAL in infra and len(infra) > 1:
        return infra.index(LOCAL), "local does not mix with other infra", "write infra: local"
    return None


def _catalog_clouds(catalog: str | None) -> set[str]:
    """The clouds in the catalog's first columns; a catalog that cannot be read is the planner's to complain about."""
    if catalog is None or not is_file(catalog):
        return set()
    try:
        with Path(catalog).open("rb") as file:
            text = file.read(_CATALOG_BYTES).decode("utf-8", "replace")
        return {(row.get("cloud") or "").strip().lower() for row in csv.DictReader(text.splitlines())} - {""}
    except (OSError, csv.Error):
        return set()
