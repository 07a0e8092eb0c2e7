"""Where a service may run: ``local``, ``slurm``, ``aws``, ``aws/us-east-1`` …"""

import re
from pathlib import Path
from typing import Final

from disagctl.spec.locate import CATALOGS, is_file
from disagctl.spec.nodes import Map, Problem, line_of, shown
from disagctl.spec.schema import Spec
from disagctl.spec.suggest import did_you_mean
from planner.facts.table import read

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
    files = [("catalog", path) for path in spec.catalog if path not in CATALOGS]
    files += [("profiles", spec.profiles)] if spec.profiles is not None else []
    for key, path in files:
        if check_files and not is_file(path):
            raise Problem(
                line_of(tree, key), f"there is no file {shown(path)}", "paths are relative to the spec's folder"
            )
    wrong = complaint(spec.infra, spec.catalog)
    if wrong is not None:
        index, what, why = wrong
        raise Problem(line_of(tree, "infra", index), what, why)


def complaint(infra: list[str], catalogs: list[str]) -> tuple[int, str, str] | None:
    """(which entry, what is wrong, what to write) of the first place that is none; None when all are well."""
    if not infra:
        return 0, "infra is empty", "write infra: local"
    named = [_catalog_clouds(path) for path in catalogs]
    known = [*PLACES, *sorted({cloud for clouds in named for cloud in clouds or ()})]
    for index, place in enumerate(infra):
        name = place.partition("/")[0].lower()
        unsure = None in named  # the planner complains about a catalog, and says what is wrong with it
        if not _PLACE.fullmatch(place) or (name not in known and not unsure):
            why = did_you_mean(name, known) or "it is local, slurm, kubernetes or a cloud"
            return index, f"{shown(place)} is no infra known here", why
    if LOCAL in infra and len(infra) > 1:
        return infra.index(LOCAL), "local does not mix with other infra", "write infra: local"
    return None


def _catalog_clouds(catalog: str) -> set[str] | None:
    """The clouds that a catalog names; None when that cannot be said: it is no catalog, or too long to look through here."""
    if catalog in CATALOGS:
        return set()
    try:
        with Path(catalog).open("rb") as file:
            data = file.read(_CATALOG_BYTES + 1)
    except (OSError, ValueError):
        return None
    if len(data) > _CATALOG_BYTES:
        return None
    rows, defects = read(data.decode("utf-8", "replace"), catalog, ("cloud",))
    return None if defects or not rows else {row.text("cloud").lower() for row in rows} - {""}
