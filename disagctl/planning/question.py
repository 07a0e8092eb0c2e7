"""``--explain STAGE GPU``: is there such a stage, and such a GPU?"""

from disagctl.errors import UsageError
from disagctl.planning.gather import Inputs
from disagctl.spec.suggest import did_you_mean
from planner.facts.names import canonical


def question(inputs: Inputs, stage: str, gpu: str) -> tuple[str, str]:
    """The stage as the planner takes it (``model.stage`` or bare), and the GPU's canonical name. Raises UsageError."""
    name = canonical(gpu)
    known = [card.name for card in inputs.request.gpus]
    if name is None or name not in known:
        raise UsageError(f"--explain: unknown GPU {gpu[:40]!r}", why=did_you_mean(gpu, known))
    stages = {part for model in inputs.request.models for part in model.stages}
    roles = {f"{model.name}.{part}" for model in inputs.request.models for part in model.stages}
    owner = next((m.name for m in inputs.request.models if stage.startswith(f"{m.name}.")), "")
    parts = stage.removeprefix(f"{owner}.").split("+") if owner else stage.split("+")
    if not all((f"{owner}.{part}" in roles) if owner else (part in stages) for part in parts):
        raise UsageError(f"--explain: no stage {stage[:40]!r} here", why=did_you_mean(stage, sorted(stages | roles)))
    return stage, name
