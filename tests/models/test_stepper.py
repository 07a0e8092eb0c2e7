"""Taking a pipeline's loop apart, shown on a pipeline of three lines."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.modular_pipelines import PipelineState
from diffusers.modular_pipelines.modular_pipeline import LoopSequentialPipelineBlocks, ModularPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline_utils import InputParam, OutputParam

from stages.models import snapshot
from stages.models.base import ModelCard, ModelError
from stages.models.blocks import Input, StagePlan, _assign
from stages.models.state import initial_state, initial_values, make_generator, read_wire, write_wire
from stages.models.stepper import Stepper
from stages.parcel import ParcelError, pack
from tests.models.kit import crossed

CPU = torch.device("cpu")


class Prepare(ModularPipelineBlocks):
    model_name = "toy"

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam("latents"), OutputParam("timesteps")]

    @property
    def inputs(self) -> list[InputParam]:
        return [InputParam("generator"), InputParam("steps", default=4)]

    def __call__(self, components: Any, state: PipelineState) -> Any:
        state.set("latents", torch.randn(3, generator=state.get("generator")))
        state.set("timesteps", torch.arange(state.get("steps"), dtype=torch.float32))
        return components, state


class Add(ModularPipelineBlocks):
    model_name = "toy"

    @property
    def inputs(self) -> list[InputParam]:
        return [InputParam("latents"), InputParam("timesteps"), InputParam("generator")]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam("latents")]

    def __call__(self, components: Any, block_state: Any, i: int = 0, t: Any = None, k: int = 0) -> Any:
        noise = torch.randn(3, generator=block_state.generator)
        components.scheduler.memory.append(i)
        block_state.latents = block_state.latents * 2 + noise + block_state.bias + sum(components.scheduler.memory)
        return components, block_state


class Loop(LoopSequentialPipelineBlocks):
    model_name = "toy"
    block_classes = [Add]  # noqa: RUF012
    block_names = ["add"]  # noqa: RUF012
    description = "a loop that does something before and after its steps"

    def __call__(self, components: Any, state: PipelineState) -> Any:
        block_state = self.get_block_state(state)
        block_state.bias = 0.5
        for i, t in enumerate(block_state.timesteps):
            components, block_state = self.loop_step(components, block_state, i=i, t=t)
        block_state.latents = block_state.latents + 100
        self.set_block_state(state, block_state)
        return components, state


class Chunks(Loop):
    def __call__(self, components: Any, state: PipelineState) -> Any:
        block_state = self.get_block_state(state)
        block_state.bias = 0.5
        for k in range(2):
            components, block_state = self.loop_step(components, block_state, k=k)
        self.set_block_state(state, block_state)
        return components, state


class Tail(ModularPipelineBlocks):
    model_name = "toy"

    def __call__(self, components: Any, state: PipelineState) -> Any:
        state.set("latents", -state.get("latents"))
        return components, state


def components() -> SimpleNamespace:
    return SimpleNamespace(scheduler=SimpleNamespace(memory=[]))


def stepper(*blocks: Any) -> Stepper:
    state = PipelineState()
    state.set("generator", torch.Generator().manual_seed(3))
    state.set("steps", 4)
    return Stepper(components(), tuple((type(block).__name__, block) for block in blocks), state)


def in_one_go(*blocks: Any) -> torch.Tensor:
    whole = stepper(*blocks)
    pipeline, state = whole.pipeline, whole.state
    for block in blocks:
        pipeline, state = block(pipeline, state)
    return state.get("latents")


def by_steps(toy: Stepper) -> torch.Tensor:
    while toy.step():
        pass
    return toy.finish().get("latents")


def test_steps_equal_the_loop_with_what_it_does_before_and_after() -> None:
    toy = stepper(Prepare(), Loop(), Tail())
    toy.prepare()
    assert (toy.steppable, toy.total_steps, toy.steps_done) == (True, 4, 0)
    assert torch.equal(by_steps(toy), in_one_go(Prepare(), Loop(), Tail()))
    assert toy.steps_done == 4


def test_a_chunked_loop_is_one_step() -> None:
    toy = stepper(Prepare(), Chunks(), Tail())
    toy.prepare()
    assert (toy.steppable, toy.total_steps) == (False, 1)
    with pytest.raises(ParcelError, match="cannot be paused"):
        snapshot.take(toy, CPU)
    assert torch.equal(by_steps(toy), in_one_go(Prepare(), Chunks(), Tail()))


def test_no_loop_is_one_step() -> None:
    toy = stepper(Prepare(), Tail())
    toy.prepare()
    assert toy.total_steps == 1
    assert torch.equal(by_steps(toy), in_one_go(Prepare(), Tail()))


@pytest.mark.parametrize("steps", [0, 1, 3, 4])
def test_snapshots_hold_generator_scheduler_and_loop(steps: int) -> None:
    toy = stepper(Prepare(), Loop(), Tail())
    toy.prepare()
    for _ in range(steps):
        toy.step()
    taken = crossed(snapshot.take(toy, CPU))
    other = Stepper(components(), (("Loop", Loop()), ("Tail", Tail())), PipelineState())
    snapshot.restore(other, taken, CPU)
    assert (other.steps_done, other.total_steps) == (steps, 4)
    while other.steps_done < 4:
        other.step()
    assert torch.equal(other.finish().get("latents"), in_one_go(Prepare(), Loop(), Tail()))


def test_a_scheduler_with_objects_cannot_be_snapshotted() -> None:
    toy = stepper(Prepare(), Loop())
    toy.prepare()
    toy.pipeline.scheduler.sampler = object()
    with pytest.raises(ParcelError, match="object"):
        snapshot.take(toy, CPU)


def test_stages_by_position() -> None:
    paths = ["text_encoder", "vae_encoder.resize", "denoise.input", "denoise.denoise", "decode", "postprocess"]
    assert _assign(paths) == ["encode", "encode", "denoise", "denoise", "decode", "decode"]


# --- the wire -------------------------------------------------------------------------------------------------------

CARD = ModelCard(("encode", "denoise", "decode"), "image", "text2image")
INPUTS = (Input("prompt", None, None), Input("height", 64, None), Input("generator", None, None))


def plan(later: set[str], kinds: set[str] = frozenset()) -> StagePlan:  # type: ignore[assignment]
    return StagePlan("encode", (), INPUTS, frozenset(later), frozenset(kinds), needs_negative=False)


def arrives(stage: StagePlan, state: PipelineState, initial: dict[str, Any]) -> dict[str, Any]:
    return read_wire(crossed(write_wire(stage, state, initial, {"seed": 5}, CPU)), CPU)


def test_only_what_later_stages_cannot_know_is_sent() -> None:
    initial = initial_values(plan(set()), {"prompt": "x"}, CARD)
    assert initial == {"prompt": "x", "height": 64, "generator": None}
    state = initial_state(plan(set()), initial, {})
    state.set("embeds", torch.ones(2), "group")
    state.set("unused", torch.ones(2))
    state.set("none", None)
    wire = arrives(plan({"prompt", "height", "none"}, {"group"}), state, initial)
    assert wire["values"].keys() == {"embeds"}
    state.set("height", 48)  # changed on the way
    wire = arrives(plan({"prompt", "height"}, {"group"}), state, initial)
    assert wire["values"]["height"] == 48
    after = initial_state(plan(set()), initial, wire)
    assert after.get("height") == 48
    assert after.get_by_kwargs("group").keys() == {"embeds"}


def test_random_numbers_go_on_where_an_earlier_stage_left_them() -> None:
    initial = {"generator": None}
    state = PipelineState()
    state.set("generator", make_generator({"seed": 5}, {}))
    wire = arrives(plan({"generator"}), state, initial)
    assert "generator" not in wire  # nothing was drawn: the seed says it all
    torch.randn(7, generator=state.get("generator"))
    wire = arrives(plan({"generator"}), state, initial)
    expected = torch.randn(3, generator=state.get("generator"))
    assert torch.equal(torch.randn(3, generator=make_generator({"seed": 5}, wire)), expected)
    assert "generator" not in arrives(plan(set()), state, initial)  # nobody later wants it


def test_objects_on_the_wire_are_the_models_fault() -> None:
    state = PipelineState()
    state.set("image", object())
    with pytest.raises(ModelError, match="cannot hand on"):
        write_wire(plan({"image"}), state, {}, {}, CPU)


def test_foreign_parcels() -> None:
    trees: tuple[dict[str, Any], ...] = ({}, {"values": 1, "kinds": {}}, {"values": {}})
    for tree in trees:
        with pytest.raises(ParcelError):
            read_wire(pack(tree), CPU)
