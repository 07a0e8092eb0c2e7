"""Each mistake is answered by its line and by what to write instead."""

import os
from pathlib import Path

import pytest

from disagctl.errors import SpecError
from disagctl.spec import load_spec
from tests.spec.specs import MINIMAL, read

HEAD = "name: x\nmodel: {id: a/b}\nworkload: {rate: 1/s}\n"
VARIANTS = HEAD + "stages:\n  denoise:\n    resources:\n      "
CASES = {
    "unknown key": (HEAD + "budgets: {}", 4, "did you mean 'budget'?"),
    "nested unknown key": (HEAD + "stages:\n  denoise:\n    replica: 2", 6, "did you mean 'replicas'?"),
    "unknown key in a list": ("name: x\nmodels:\n- id: a/b\n- id: a/c\n  dtpe: auto", 5, "did you mean 'dtype'?"),
    "misspelt model": ("name: x\nmodle: a/b", 2, "did you mean 'model'?"),
    "no model": ("name: x\nworkload: {rate: 1/s}", 1, "'model' is missing"),
    "both": ("name: x\nmodel: a/b\nmodels: []", 3, "exclude each other"),
    "no name": ("model: a/b\nworkload: {rate: 1/s}", 1, "'name' is missing"),
    "no workload": ("name: x\nmodel: a/b", 1, "'workload' is missing"),
    "no rate": ("name: x\nmodel: a/b\nworkload: {}", 3, "needs a rate or a trace"),
    "bad name": ("name: Wan_Shop\nmodel: a/b\nworkload: {rate: 1/s}", 1, "cannot be a service's name"),
    "enum": (HEAD + "policy:\n  scaling: hybird", 5, "did you mean 'hybrid'?"),
    "enum without a near one": (HEAD + "policy:\n  scaling: zzz", 5, "known here: hybrid, predict, reactive"),
    "duration": (HEAD + "slo: {p95: fast}", 4, "180s"),
    "rate": ("name: x\nmodel: a/b\nworkload: {rate: 12}", 3, "12/min"),
    "size": ("name: x\nmodel: a/b\nworkload: {rate: 1/s, shapes: [{size: 832}]}", 3, "832x480"),
    "range": (HEAD + "stages: {denoise: {replicas: 4..2}}", 4, "smaller number comes first"),
    "no replicas": (HEAD + "stages: {denoise: {replicas: 0}}", 4, "at least 1"),
    "never where it cannot be": (HEAD + "lifetime: {dead_man: never}", 4, "30m"),
    "shares": (
        "name: x\nmodel: a/b\nworkload:\n  rate: 1/s\n  shapes:\n  - {share: 0.7, size: 8x8}\n  - {share: 0.2, size: 9x9}",
        5,
        "add up to 0.9",
    ),
    "precision": (HEAD + "stages:\n  denoise:\n    precision: int9", 6, "did you mean"),
    "precisions": (HEAD + "stages:\n  denoise:\n    precision: [bf16, nf4]\n    offload: true", 6, "cannot be offloaded"),
    "no precision": (HEAD + "stages:\n  denoise:\n    precision: []", 6, "empty list"),
    "quantised VAE": (HEAD + "stages:\n  decode: {precision: int8}", 5, "not quantised"),
    "spread decode": (HEAD + "stages:\n  decode: {gpus_per_replica: 2}", 5, "only denoise can"),
    "spread on rented nodes": (HEAD + "infra: aws\nstages:\n  denoise: {gpus_per_replica: 3}", 6, "write 2, 4 or 8"),
    "options of a real model": ("name: x\nworkload: {rate: 1/s}\nmodel:\n  id: a/b\n  options: {expert: split}", 5, "expert"),
    "stage of experts": (
        "name: x\nworkload: {rate: 1/s}\nmodel: {id: a/b, options: {experts: split}}\nstages: {denoise: {}}", 4, "denoise_low",
    ),
    "stage": (HEAD + "stages:\n  denose: {}", 5, "did you mean 'denoise'?"),
    "synthetic option": (
        "name: x\nworkload: {rate: 1/s}\nmodel:\n  id: synthetic\n  stages:\n    encode:\n      secnds: 1",
        7,
        "did you mean 'seconds'?",
    ),
    "stages of a real model": ("name: x\nworkload: {rate: 1/s}\nmodel:\n  id: a/b\n  stages: {e: {}}", 5, "replicas belong"),
    "network": (HEAD + "transport:\n  trusted_networks:\n  - 10.0.0.0/8\n  - ten", 7, "not a network"),
    "no trust": (HEAD + "transport:\n  mode: mooncake", 5, "trusted_networks"),
    "no store": (HEAD + "transport:\n  mode: relay", 5, "set relay"),
    "relay": (HEAD + "transport:\n  relay: /srv/tensors", 5, "is not a store"),
    "store": (HEAD + "artifacts: {store: ftp://x}", 4, "s3://bucket"),
    "secret value": (HEAD + "secrets: ['hf_ab cd']", 4, "names of environment variables"),
    "public": (HEAD + "api:\n  public: true", 5, "certificate"),
    "reachable": (HEAD + "api:\n  host: 0.0.0.0", 5, "public: true"),
    "infra": (HEAD + "infra: [asw]", 4, "did you mean 'aws'?"),
    "mixed infra": (HEAD + "infra: [local, aws]", 4, "does not mix"),
    "bad id": ("name: x\nmodel: 'a b/c'\nworkload: {rate: 1/s}", 2, "neither a hub id nor a folder"),
    "no folder": ("name: x\nmodel: ./nope\nworkload: {rate: 1/s}", 2, "there is no folder"),
    "no trace": ("name: x\nmodel: a/b\nworkload: {trace: t.csv}", 3, "there is no file"),
    "twins": ("name: x\nworkload: {rate: 1/s}\nmodels:\n- {id: a/b}\n- {id: c/b}", 5, "two models are called 'b'"),
    "key in any_of": (VARIANTS + "any_of:\n      - {acelerators: L4}", 8, "'accelerators'?"),
    "type in ordered": (VARIANTS + "ordered:\n      - {use_spot: often}", 8, "true or false"),
    "empty any_of": (VARIANTS + "any_of: []", 7, "any_of is empty"),
    "nested any_of": (HEAD + "stages: {denoise: {resources: {any_of: [{ordered: [{}]}]}}}", 4, "cannot hold"),
    "share": (HEAD + "placement: {max_pool_share: 1.5}", 4, "at most 1"),
    "egress": (HEAD + "placement: {egress_usd_per_gib: {aws: -1}}", 4, "at least 0"),
    "quota": (HEAD + "quotas:\n- {acelerator: L4, max_gpus: 1}", 5, "'accelerator'?"),
    "cap": (HEAD + "quotas:\n- {max_gpus: -1}", 5, "at least 0"),
    "catalogs": (HEAD + "catalog: [shipped, nope.csv]", 4, "there is no file"),
    "type": (HEAD + "bundles: maybe", 4, "true or false"),
    "number": (HEAD + "budget: {max_usd_per_hour: lots}", 4, "a number"),
    "negative": (HEAD + "budget: {max_usd_per_hour: -1}", 4, "more than 0"),
    "infinite": (HEAD + "budget: {max_usd_per_hour: 1e999}", 4, "too large"),
    "list for mapping": (HEAD + "slo: [1]", 4, "a mapping"),
    "twice": ("name: x\nname: y", 2, "there twice"),
    "alias": ("name: &a x\nmodel: *a", 1, "aliases"),
    "tag": ("name: !!python/object/apply:os.system [id]", 1, "tags"),
    "two documents": (MINIMAL + "---\nname: y", 4, "second document"),
    "not YAML": ("name: x\nmodel: [a", 2, "not valid YAML"),
    "control character": ('name: x\nmodel: "a\\0b"', 2, "not taken"),
    "a list": ("- name", 1, "mapping"),
    "empty": ("# nothing\n", 1, "empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_mistakes(case: str) -> None:
    text, line, hint = CASES[case]
    with pytest.raises(SpecError) as caught:
        read(text)
    assert caught.value.exit_code == 3
    assert caught.value.what.startswith(f"service.yaml:{line}: "), str(caught.value)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_secret_in_the_wrong_place_is_not_printed() -> None:
    with pytest.raises(SpecError) as caught:
        read(HEAD + "secrets: ['hf_abcdef ']")
    assert "hf_abcdef" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    binary = tmp_path / "binary"
    binary.write_bytes(b"name: x\n\xff\xfe")
    for path, line, hint in (
        (tmp_path / "missing.yaml", 1, "No such file"),
        (tmp_path, 1, "cannot read"),
        (pipe, 1, "not a regular file"),
        (binary, 2, "UTF-8"),
        (Path("/dev/zero"), 1, "not a regular file"),
        (tmp_path / ("x" * 5000), 1, "cannot read"),
    ):
        with pytest.raises(SpecError) as caught:
            load_spec(path)
        assert caught.value.what.startswith(f"{path}:{line}: "), str(caught.value)
        assert hint in str(caught.value) or path == tmp_path
