"""What the engine needs of those around it, and what it tells a worker of a task."""

from typing import Protocol

from planner.domain import TaskRef
from planner.run import effects as fx
from stages import protocol as wire


class Sender(Protocol):
    """The part of the hub that the engine needs."""

    def send(self, peer: str, message: wire.HeadMessage | wire.AgentOrder) -> None:
        """Queue a message."""


class Desk(Protocol):
    """What the engine reports to: it makes endings durable and tells those who wait."""

    def publish(self, effect: fx.Publish) -> None:
        """Make the result durable, then tell the ledger."""

    def finish(self, effect: fx.Finish) -> None:
        """Make the ending durable."""

    def progress(self, request: str) -> None:
        """The request has moved."""

    def event(self, kind: str, why: str) -> None:
        """Something happened that a person may want to know."""

    def discard_upload(self, ref: TaskRef) -> None:
        """A fenced result may have left an upload."""


def pass_on(effect: fx.CancelTask | fx.PauseTask | fx.SpreadTask, sender: Sender, desk: Desk) -> None:
    """Tell a worker of a task that it has."""
    match effect:
        case fx.CancelTask(worker=worker, ref=ref):
            sender.send(worker, wire.Cancel(ref))
        case fx.PauseTask(worker=worker, ref=ref):
            sender.send(worker, wire.Pause(ref))
        case fx.SpreadTask(worker=worker, ref=ref, degree=degree):
            sender.send(worker, wire.Spread(ref, degree))
            desk.event("degree", f"{ref.request}: {ref.stage} on {degree} GPU{'s'[: degree - 1]} of {worker}")


def task_of(effect: fx.Assign) -> wire.Task:
    """As it crosses the wire."""
    return wire.Task(
        effect.ref, effect.model, effect.attempt, effect.payload, effect.input,
        effect.resumed_at, effect.spent_s, effect.batch, effect.degree,
    )  # fmt: skip
