"""Running a stage's blocks one denoise step at a time.

The loop blocks of diffusers run to their end in one call. Here the call is taken apart without knowing the family: the
loop's own ``__call__`` runs up to its first ``loop_step``, where its state is caught; the steps are then driven from
outside; at the end ``__call__`` runs once more with ``loop_step`` handing it the final state, so that whatever the
family does before and after its steps is done.

A loop that is not a plain ``for i, t in enumerate(timesteps)`` (those which go through a video in chunks) is not taken
apart: it runs in a single step, can be neither paused nor moved, and its cancellation waits for its end.
"""

from typing import Any, Final

import torch
from diffusers.modular_pipelines import PipelineState

from stages.models.blocks import is_loop

_STEP_ARGUMENTS: Final = {"i", "t"}


class _Caught(Exception):
    """Carries a loop's block state out of its ``__call__``, at the first step."""

    def __init__(self, block_state: Any, arguments: dict[str, Any]) -> None:
        super().__init__("the loop's first step was reached")
        self.block_state = block_state
        self.arguments = arguments


class Stepper:
    """Blocks, a pipeline and a state.

    ``total_steps`` is known once ``prepare`` ran; ``block_state`` is the loop's own, None where there is no loop that
    can be stepped. ``steps_done`` counts calls of ``step``.
    """

    def __init__(self, pipeline: Any, leaves: tuple[tuple[str, Any], ...], state: PipelineState) -> None:
        self.pipeline = pipeline
        self.state = state
        self.block_state: Any = None
        self.total_steps = 1
        self.steps_done = 0
        self._end = 0  # of the steps that are ours
        blocks = [block for _, block in leaves]
        at = next((i for i, block in enumerate(blocks) if is_loop(block)), len(blocks))
        self._before, self._rest = blocks[:at], blocks[at:]

    @property
    def steppable(self) -> bool:
        """Whether there is a loop, and it can be driven from outside."""
        return self.block_state is not None

    @torch.no_grad()
    def prepare(self) -> None:
        """Run what comes before the loop. Cheap in a denoise stage; a stage without a loop does all its work later."""
        if not self._rest:
            return
        for block in self._before:
            self.pipeline, self.state = block(self.pipeline, self.state)
        self._before = []
        self._catch()

    @torch.no_grad()
    def restore(self, block_values: dict[str, Any], steps_done: int) -> None:
        """Take the loop up in the middle: the state is already as it was when the loop began."""
        self._before = []
        self._catch()  # what the loop does to its components before its first step
        for name, value in block_values.items():
            setattr(self.block_state, name, value)
        self.steps_done = steps_done

    @torch.no_grad()
    def enter(self) -> None:
        """Before the next step of a loop that waited while another ran on the same pipeline: its own beginning, again."""
        mine, total, end = self.block_state, self.total_steps, self._end
        self._catch()  # what the loop does to its components
        self.block_state, self.total_steps, self._end = mine, total, end

    def stop_at(self, step: int) -> None:
        """Leave the steps from this one on to another stage. With none left ``step`` does nothing."""
        self._end = step
        self.total_steps = max(step, 1)

    @torch.no_grad()
    def step(self) -> bool:
        """One denoise step, or all the work where there are no steps. True while more remain."""
        if self.block_state is not None:
            i = self.steps_done
            if i >= self._end:
                return False
            step = self._rest[0].loop_step
            t = self.block_state.timesteps[i]
            self.pipeline, self.block_state = step(self.pipeline, self.block_state, i=i, t=t)
        else:
            self._run([*self._before, *self._rest])
            self._before, self._rest = [], []
        self.steps_done += 1
        return self.steps_done < self.total_steps

    @torch.no_grad()
    def finish(self) -> PipelineState:
        """Run what comes after the last step and return the state."""
        if self.block_state is not None:
            final = self.block_state
            self._with_step(lambda pipeline, _state, **_: (pipeline, final))
            self._rest = self._rest[1:]
            self.block_state = None
        self._run(self._rest)
        self._rest = []
        return self.state

    def _run(self, blocks: list[Any]) -> None:
        for block in blocks:
            _quiet(block)
            self.pipeline, self.state = block(self.pipeline, self.state)

    def _catch(self) -> None:
        """Run the loop's ``__call__`` up to its first step; see whether it is one that can be driven."""

        def stop(_pipeline: Any, block_state: Any, **arguments: Any) -> None:
            raise _Caught(block_state, arguments)

        try:
            self._with_step(stop)
        except _Caught as caught:
            timesteps = getattr(caught.block_state, "timesteps", None)
            if caught.arguments.keys() == _STEP_ARGUMENTS and timesteps is not None and len(timesteps):
                self.block_state = caught.block_state
                self.total_steps = self._end = len(timesteps)

    def _with_step(self, loop_step: Any) -> None:
        loop = self._rest[0]
        _quiet(loop)
        loop.loop_step = loop_step  # shadows the method on this one instance
        try:
            self.pipeline, self.state = loop(self.pipeline, self.state)
        finally:
            del loop.loop_step


def _quiet(block: Any) -> None:
    if hasattr(block, "set_progress_bar_config"):
        block.set_progress_bar_config(disable=True)
