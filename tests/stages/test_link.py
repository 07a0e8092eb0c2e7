"""Numbered frames: what is lost is noticed; batches and sizes are bounded."""

import msgspec
import pytest

from stages.link import SEQ_MASK, Counter, FrameError, frames_of
from stages.protocol import MAX_BATCH, MAX_CONTROL_BYTES, Beat, Release, WorkerMessage

ENCODER = msgspec.msgpack.Encoder()
DECODER = msgspec.msgpack.Decoder(list[WorkerMessage | Release])


def frames(count: int) -> list[memoryview]:
    counter = Counter()
    return [memoryview(counter.stamp() + b"x") for _ in range(count)]


def test_frames_in_turn_follow() -> None:
    receiver = Counter()
    assert all(receiver.check(frame) for frame in frames(100))


@pytest.mark.parametrize("lost", [0, 1, 50, 98])
def test_each_loss_is_noticed_once(lost: int) -> None:
    receiver = Counter()
    kept = [frame for n, frame in enumerate(frames(100)) if n != lost]
    assert [receiver.check(frame) for frame in kept].count(False) == 1


def test_a_repeated_frame_is_noticed() -> None:
    receiver, sent = Counter(), frames(3)
    assert [receiver.check(frame) for frame in (*sent, sent[0])] == [True, True, True, False]


def test_a_peer_that_counts_anew_is_noticed() -> None:
    receiver = Counter()
    for frame in frames(5):
        receiver.check(frame)
    assert not receiver.check(frames(1)[0])


def test_numbers_wrap() -> None:
    sender, receiver = Counter(), Counter()
    sender._sent = receiver._received = SEQ_MASK - 1
    assert all(receiver.check(memoryview(sender.stamp())) for _ in range(4))


def test_messages_share_frames_up_to_the_limit_and_keep_their_order() -> None:
    messages = [Beat(n) for n in range(2 * MAX_BATCH + 10)]
    out = frames_of(messages, ENCODER)
    assert len(out) == 3
    assert [message for frame in out for message in DECODER.decode(frame)] == messages


def test_large_batches_are_split_until_they_fit() -> None:
    messages = [Release(("k" * 100_000,)) for _ in range(30)]
    out = frames_of(messages, ENCODER)
    assert len(out) >= 3
    assert all(len(frame) < MAX_CONTROL_BYTES for frame in out)
    assert [message for frame in out for message in DECODER.decode(frame)] == messages


def test_a_message_that_fits_no_frame_is_an_error() -> None:
    with pytest.raises(FrameError, match="Release of"):
        frames_of([Beat(), Release(("k" * MAX_CONTROL_BYTES,))], ENCODER)


def test_nothing_makes_no_frame() -> None:
    assert frames_of([], ENCODER) == []
