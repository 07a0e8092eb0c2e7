"""``infra: local`` without prices: nothing to choose, so nothing is solved. One worker a stage, or as many as the spec says."""

from typing import Any

from disagctl.planning.catalogs import load_catalog
from disagctl.planning.plan_file import SCHEMA_VERSION
from disagctl.spec import Spec
from disagctl.spec.check_models import known_stages
from disagctl.spec.infra import LOCAL
from stages.hardware import gpus
from stages.models.cards import STAGES


def applies(spec: Spec) -> bool:
    """Whether the spec means this machine, and no catalog puts a price on it."""
    if spec.infra != [LOCAL]:
        return False
    return not spec.catalog or all(offer.cloud != LOCAL for offer in load_catalog(spec.catalog, ()).offers)


def plan(spec: Spec) -> dict[str, Any]:
    """CONTRACT's document. What is not measured yet is null: the first requests become measured rows."""
    cards = gpus()
    offer = {
        "cloud": LOCAL, "region": "", "instance_type": "this machine", "accelerator": cards[0].name if cards else "CPU",
        "count": len(cards), "spot": False,
    }  # fmt: skip
    rows: list[dict[str, Any]] = [
        {
            "model": entry.name, "stage": stage, "offer": offer, "nodes": 1, "replicas": spec.replicas(entry.name, stage)[0],
            "gpus_per_replica": spec.wish(entry.name, stage).gpus if cards else 0, "seconds_per_request": None,
            "utilisation": None, "usd_per_hour": 0.0, "source": None, "routes": [],
        }
        for entry in spec.models
        for stage in known_stages(entry) or STAGES
    ]  # fmt: skip
    return {
        "schema_version": SCHEMA_VERSION, "name": spec.name, "feasible": True, "usd_per_hour": 0.0, "throughput_per_min": None,
        "p95_s": None, "rows": rows, "alternatives": [], "solver": {"status": "not_needed", "gap": 0.0, "seconds": 0.0},
        "warnings": ["this machine's times are not known yet: the first requests will be measured"],
    }  # fmt: skip
