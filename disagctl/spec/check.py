"""What types cannot say: names, sums, exclusions, what needs what. Every complaint finds its line again."""

import ipaddress
import re
from typing import Final

from disagctl.spec.check_models import check_models, known_stages
from disagctl.spec.check_resources import check_resources
from disagctl.spec.infra import LOCAL, check_infra
from disagctl.spec.locate import is_file
from disagctl.spec.nodes import Map, Problem, line_of, shown
from disagctl.spec.schema import Spec, Workload
from disagctl.spec.suggest import did_you_mean
from planner.precision import unfit
from stages.models.cards import SPREADABLE

NAME: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")  # also part of host names, ids and folder names
_SECRET: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_BUCKET: Final = re.compile(r"(?:s3|gs)://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](?:/[A-Za-z0-9._/-]*)?")
_STORE: Final = re.compile(r"[a-z0-9+]+://\S+")
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_MAX_SHAPES: Final = 256
_SHARE_SLACK: Final = 0.01


def check(spec: Spec, tree: Map, *, check_files: bool) -> None:
    """Raises Problem for the first thing that is wrong."""
    if not NAME.fullmatch(spec.name):
        why = "it is lower-case letters, digits and dashes, starts with a letter and has at most 40 characters"
        raise Problem(line_of(tree, "name"), f"{shown(spec.name)} cannot be a service's name", why)
    check_models(spec, tree, check_files=check_files)
    _workloads(spec, tree, check_files)
    _stages(spec, tree)
    check_resources(spec, tree)
    _precisions(spec, tree)
    _spread(spec, tree)
    check_infra(spec, tree, check_files=check_files)
    _networks(spec, tree)
    _transport(spec, tree)
    if spec.artifacts.store != "head" and not _BUCKET.fullmatch(spec.artifacts.store):
        line = line_of(tree, "artifacts", "store")
        raise Problem(line, f"store cannot be {shown(spec.artifacts.store)}", "it is head, s3://bucket or gs://bucket")
    for secret in spec.secrets:
        if not _SECRET.fullmatch(secret):  # and do not print it: it may be the secret itself
            raise Problem(line_of(tree, "secrets"), "secrets are names of environment variables", "such as HF_TOKEN")
    _api(spec, tree)


def _workloads(spec: Spec, tree: Map, check_files: bool) -> None:
    if spec.workload is not None:
        _workload(spec.workload, tree, ("workload",), check_files)
    for i, entry in enumerate(spec.models):
        if entry.workload is not None:
            _workload(entry.workload, tree, ("models", i, "workload"), check_files)
        elif spec.workload is None:
            why = f"model {entry.name!r} has none of its own" if len(spec.models) > 1 else "how much is to be served?"
            raise Problem(tree.line, "the key 'workload' is missing", why, "workload: {rate: 12/min}")


def _workload(workload: Workload, tree: Map, path: tuple[str | int, ...], check_files: bool) -> None:
    if (workload.rate_per_min is None) == (workload.trace is None):
        what = "rate and trace exclude each other" if workload.trace else "workload needs a rate or a trace"
        raise Problem(line_of(tree, *path), what, next="rate: 12/min, or trace: requests.csv")
    if workload.trace and workload.shapes:
        raise Problem(
            line_of(tree, *path, "shapes"), "a trace brings its own shapes", next="remove shapes or the trace"
        )
    if workload.trace and check_files and not is_file(workload.trace):
        raise Problem(line_of(tree, *path, "trace"), f"there is no file {shown(workload.trace)}")
    if len(workload.shapes) > _MAX_SHAPES:
        raise Problem(line_of(tree, *path, "shapes"), f"there are more than {_MAX_SHAPES} shapes", next="use a trace")
    total = sum(shape.share for shape in workload.shapes)
    if workload.shapes and abs(total - 1) > _SHARE_SLACK:
        raise Problem(line_of(tree, *path, "shapes"), f"the shares of the shapes add up to {total:g}", "they must to 1")


def _stages(spec: Spec, tree: Map) -> None:
    """Stage names must be known, where the model's stages are known; otherwise a typo would do nothing, silently."""
    per_model = {entry.name: known_stages(entry) for entry in spec.models}
    if any(stages is None for stages in per_model.values()):
        return
    names = {stage for stages in per_model.values() for stage in stages or ()}
    roles = {f"{model}.{stage}" for model, stages in per_model.items() for stage in stages or ()}
    for key in spec.stages:
        if key not in names and key not in roles:
            near = did_you_mean(key, [*names, *roles] if "." in key else sorted(names))
            raise Problem(line_of(tree, "stages", key), f"no model here has a stage {shown(key)}", near)


def _precisions(spec: Spec, tree: Map) -> None:
    for key, wish in spec.stages.items():
        line = line_of(tree, "stages", key, "precision")
        if not wish.precisions:
            raise Problem(line, "precision is an empty list", next="leave it out, or write such as [bf16, int8]")
        for precision in wish.precisions:
            problem = unfit(precision, key.rpartition(".")[2])
            if problem:
                raise Problem(line, problem)


def _spread(spec: Spec, tree: Map) -> None:
    for key, wish in spec.stages.items():
        line = line_of(tree, "stages", key, "gpus_per_replica")
        if wish.gpus > 1 and key.rpartition(".")[2] != SPREADABLE:
            raise Problem(line, f"{shown(key)} cannot be spread over several GPUs", "only denoise can", "remove it")
        if wish.gpus & (wish.gpus - 1) and spec.infra != [LOCAL]:
            why = "a plan packs them onto nodes by powers of two"
            raise Problem(line, f"gpus_per_replica cannot be {wish.gpus} on rented nodes", why, "write 2, 4 or 8")


def _networks(spec: Spec, tree: Map) -> None:
    for i, network in enumerate(spec.transport.trusted_networks):
        try:
            ipaddress.ip_network(network)
        except ValueError as err:
            line = line_of(tree, "transport", "trusted_networks", i)
            raise Problem(line, f"{shown(network)} is not a network", "write it as 10.0.0.0/8") from err

    if spec.network.advertise != "auto":
        try:
            ipaddress.ip_address(spec.network.advertise)
        except ValueError as err:
            line = line_of(tree, "network", "advertise")
            raise Problem(line, f"{shown(spec.network.advertise)} is no address", "write it as 10.0.0.5") from err


def _transport(spec: Spec, tree: Map) -> None:
    transport, line = spec.transport, line_of(tree, "transport", "mode")
    if transport.mode == "mooncake" and not transport.trusted_networks:
        why = "Mooncake lets in everybody who can reach it"
        raise Problem(line, "mode mooncake needs trusted_networks", why, "name them, such as [10.0.0.0/8]")
    if transport.mode == "relay" and not transport.relay:
        raise Problem(line, "mode relay needs a store", "tensors go through it", "set relay: s3://BUCKET/PREFIX")
    if transport.relay is not None and not _STORE.fullmatch(transport.relay):
        line = line_of(tree, "transport", "relay")
        raise Problem(
            line, f"{shown(transport.relay)} is not a store", "write it as s3://BUCKET/PREFIX or file:///FOLDER"
        )


def _api(spec: Spec, tree: Map) -> None:
    api, line = spec.api, line_of(tree, "api", "public")
    needs = "set api.certificate and api.private_key (PEM files), or api.behind_proxy: true when a proxy does TLS"
    if api.public and not api.behind_proxy and not (api.certificate and api.private_key):
        raise Problem(line, "a public endpoint needs TLS", "tokens and prompts would travel in the clear", needs)
    if (api.certificate is None) != (api.private_key is None):
        raise Problem(line_of(tree, "api"), "certificate and private_key go together")
    if not api.public and api.host not in _LOOPBACK:
        line = line_of(tree, "api", "host")
        raise Problem(line, f"host {shown(api.host)} is reachable from outside", "public is false", "set public: true")
