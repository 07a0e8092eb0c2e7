"""The shared vocabulary. Pure data: everything else of ours may import this, it imports nothing of ours."""

import msgspec


class Role(msgspec.Struct, frozen=True):
    """What a worker is for: one stage of one model of the service."""

    model: str
    stage: str

    def __str__(self) -> str:
        return f"{self.model}.{self.stage}"


class TaskRef(msgspec.Struct, frozen=True, array_like=True):
    """Names one attempt at one stage of one request. ``epoch`` fences late results: it only ever grows."""

    request: str
    stage: str
    epoch: int

    @property
    def key(self) -> str:
        """The name under which the stage's output is held by its producer."""
        return f"{self.request}/{self.stage}/{self.epoch}"
