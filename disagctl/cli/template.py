"""The text of a new service.yaml: every section with its default and a word on what it does."""

import re
from dataclasses import dataclass

from disagctl.spec.schema import SYNTHETIC
from stages.models.base import ModelCard

_MAX_NAME = 40


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when a spec is begun."""

    name: str
    model_id: str
    revision: str | None
    card: ModelCard


def service_name(model: str) -> str:
    """A valid service name made from a model's id or folder."""
    last = model.rstrip("/").rpartition("/")[2].lower()
    name = re.sub(r"[^a-z0-9]+", "-", last).strip("-")
    name = name if name[:1].isalpha() else f"model-{name}"
    return name[:_MAX_NAME].strip("-")


def write_template(facts: Facts) -> str:
    """The file."""
    return "".join((_head(facts), _workload(facts.card), _stages(facts.card), _REST))


def _head(facts: Facts) -> str:
    revision = (
        f"\n  revision: {quoted(facts.revision)}  # pinned, so that every worker loads the same weights"
        if facts.revision
        else ""
    )
    stages = _SYNTHETIC if facts.model_id == SYNTHETIC else ""
    return f"""\
# A disagctl service. `disagctl up` starts it, `disagctl schema` prints all keys for your editor.
# What is commented out shows the default.
name: {facts.name}

model:
  id: {quoted(facts.model_id)}{revision}
  # dtype: auto              # auto | bfloat16 | float16 | float32{stages}
"""


def _workload(card: ModelCard) -> str:
    """One request a second's worth of the model's own defaults."""
    wanted = card.defaults
    shape = [f"size: {wanted.get('width', 512)}x{wanted.get('height', 512)}"]
    if card.modality == "video":
        shape.append(f"frames: {wanted.get('num_frames', 81)}")
    if wanted.get("num_inference_steps", 1) > 1:
        shape.append(f"steps: {wanted['num_inference_steps']}")
    kind = "videos" if card.modality == "video" else "pictures"
    return f"""
workload:                    # what to expect; decides how much is rented
  rate: 12/min               # or trace: requests.csv (arrival_s, width, height, frames, steps)
  shapes:                    # {kind}; shares add up to 1
    - {{share: 1.0, {", ".join(shape)}}}

slo:
  p95: 10m                   # 95 % of requests are finished within this

# budget: {{max_usd_per_hour: 40, max_usd_total: 500}}

infra: local                 # this machine; elsewhere: [aws, runpod, lambda], slurm, kubernetes, aws/us-east-1
"""


def _stages(card: ModelCard) -> str:
    rows = "\n".join(f"  {stage}: {{replicas: 1}}" for stage in card.stages)
    return f"""
stages:                      # workers per stage: a number, or a range such as 1..16
{rows}
  # elsewhere than local, SkyPilot's keys:
  # denoise: {{resources: {{accelerators: [L40S, H100], use_spot: true}}, replicas: 1..16}}
"""


def quoted(text: str) -> str:
    """The text as a YAML scalar that nothing else can be read into."""
    if re.fullmatch(r"[A-Za-z./][A-Za-z0-9._/-]*", text) and text.lower() not in {"null", "true", "false"}:
        return text
    return "'" + text.replace("'", "''") + "'"


_SYNTHETIC = """
  stages:                    # it waits instead of computing
    encode: {seconds: 0.05, out_bytes: 65536}
    denoise: {seconds: 1.0, steps: 20, out_bytes: 65536}
    decode: {seconds: 0.1}"""

_REST = """
# bundles: true              # may stages share a GPU?
# placement: {cross_cloud: false}              # also max_spot_share, max_pool_share, egress_usd_per_gib
# quotas: []                 # such as {accelerator: H100, cloud: aws, max_gpus: 16}
# policy: {dispatch: fifo, scaling: hybrid, interval: 5s}   # scaling: hybrid | reactive | predict | static
# pipeline: {mode: async, encoder_cache: true}  # overlap receiving, computing and sending; encode a prompt once
# transport: {mode: auto, trusted_networks: []} # auto | inline | shm | zmq | mooncake | relay
# artifacts: {store: head, ttl: 7d, max_gib: 50}
# catalog: shipped           # or sky, or files such as [mine.csv, shipped]
# profiles: profiles.csv
# secrets: [HF_TOKEN]        # names of environment variables, for gated models
# api: {host: 127.0.0.1, public: false, max_queued: 10000}
# lifetime: {autodown_idle: 30m, dead_man: 30m, scale_to_zero: never}
"""
