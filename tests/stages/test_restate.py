"""However much a worker holds, what it says of it fits into frames."""

import msgspec

from planner.domain import TaskRef
from stages.core import WorkerCore
from stages.instructions import Send
from stages.link import frames_of
from stages.protocol import INLINE_BYTES, MAX_CONTROL_BYTES, Artifact, HeldOutput, Hello, Holding


def test_a_large_hello_is_told_in_parts() -> None:
    core = WorkerCore("n1.m.decode.0.1", "n1", 1)
    for i in range(100):
        ref = TaskRef(f"img_x_{i}", "decode", i)
        core.held[ref.key] = HeldOutput(ref, artifact=Artifact("image/png", INLINE_BYTES, 1, b"x" * INLINE_BYTES))
    messages = [i.message for i in core.restate() if isinstance(i, Send)]
    assert isinstance(messages[-1], Hello)
    told = [h.ref for m in messages if isinstance(m, Hello | Holding) for h in m.held]
    assert len(told) == len(set(told)) == 100
    assert all(isinstance(m, Holding) for m in messages[:-1])
    assert all(len(f) < MAX_CONTROL_BYTES for f in frames_of(messages, msgspec.msgpack.Encoder()))


def test_little_is_told_in_one() -> None:
    core = WorkerCore("n1.m.decode.0.1", "n1", 1)
    assert [type(i.message) for i in core.restate() if isinstance(i, Send)] == [Hello]
