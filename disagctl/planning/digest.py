"""Fingerprints of the parts of a spec that a plan was made for, so that a plan is not followed for another wish."""

import hashlib
from typing import Any

import msgspec

from disagctl.spec.schema import Spec

Digests = dict[str, str]
_LENGTH = 12


def digests(spec: Spec) -> Digests:
    """By the names of the keys. ``infra`` and ``budget`` are checked against the plan itself."""
    return {name: _digest(part) for name, part in _parts(spec).items()}


def changed(saved: Digests, spec: Spec) -> list[str]:
    """The keys that are not what they were."""
    now = digests(spec)
    return [name for name in now if name in saved and saved[name] != now[name]]


def _parts(spec: Spec) -> dict[str, Any]:
    models = [(e.name, e.id, e.revision, e.dtype, e.stages, e.options) for e in spec.models]
    workload = [(e.name, spec.workload_of(e), spec.slo_of(e)) for e in spec.models]
    return {
        "model": models, "workload": workload, "stages": spec.stages, "bundles": spec.bundles,
        "placement": spec.placement, "quotas": spec.quotas,
    }  # fmt: skip


def _digest(part: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(part, order="deterministic")).hexdigest()[:_LENGTH]
