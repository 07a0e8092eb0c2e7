"""Specs that the tests start from."""

import textwrap
from pathlib import Path

from disagctl.spec import Spec, parse_spec

FULL = textwrap.dedent("""\
    name: wan-shop
    model: {id: Wan-AI/Wan2.1-T2V-14B-Diffusers, revision: 0e12345, dtype: bfloat16}
    workload:
      rate: 12/min
      shapes: [{share: 0.7, size: 832x480, frames: 81, steps: 50}, {share: 0.3, size: 1280x720, frames: 81, steps: 4}]
    slo: {p95: 180s}
    budget: {max_usd_per_hour: 40, max_usd_total: 500}
    infra: [aws, runpod, lambda]
    stages:
      denoise: {resources: {accelerators: [RTX4090, L40S, H100], use_spot: true}, replicas: 1..16}
    bundles: true
    placement: {cross_cloud: false, max_spot_share: 0.5, max_pool_share: 0.25, egress_usd_per_gib: {aws: 0.05}}
    quotas: [{accelerator: H100, cloud: aws, spot: false, max_gpus: 16}, {instance_type: p5.48xlarge, max_nodes: 2}]
    catalog: shipped
    policy: {dispatch: fifo, scaling: hybrid}
    pipeline: {mode: async}
    transport: {mode: auto, trusted_networks: [10.0.0.0/8]}
    artifacts: {store: s3://bucket/prefix, ttl: 7d, max_gib: 50}
    secrets: [HF_TOKEN]
    api: {public: false}
    lifetime: {autodown_idle: 30m, dead_man: 30m, scale_to_zero: never}
    """)

SYNTHETIC = textwrap.dedent("""\
    name: demo
    models:
      - name: a
        id: synthetic
        stages:
          encode: {seconds: 0.05, out_bytes: 8388608, load_s: 2, weights_gib: 1}
          denoise: {seconds: 1, steps: 4, fail_prompt: "no", crash_prompt: '1e5'}
          decode: {artifact_bytes: 100000}
        workload: {rate: 2/s}
        slo: {p95: 1m30s}
      - {name: b, id: synthetic, priority: 3, dtype: float32}
    workload: {rate: 0.5/h}
    infra: local
    stages:
      a.denoise: {replicas: 2..4}
      denoise: {replicas: 3}
    """)

MINIMAL = "name: x\nmodel: synthetic\nworkload: {rate: 1/s}\n"


def read(text: str, base: Path = Path("/nonexistent")) -> Spec:
    return parse_spec(text, base=base)
