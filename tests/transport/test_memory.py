"""Slots come back by themselves, and never while anybody can see into them."""

import gc

from stages.transport.memory import SLOT_STEP, SlotPool, address_of, copy


def test_a_slot_is_used_again_only_after_its_last_view() -> None:
    pool = SlotPool(10 * SLOT_STEP)
    first = pool.take(100)
    assert first is not None
    at, part = address_of(first), first[10:20]
    del first
    gc.collect()
    second = pool.take(100)
    assert second is not None
    assert address_of(second) != at
    assert part.nbytes == 10
    del part
    gc.collect()
    third = pool.take(SLOT_STEP)
    assert third is not None
    assert (address_of(third), third.nbytes, third.readonly) == (at, SLOT_STEP, False)


def test_it_is_bounded_and_gives_up_what_does_not_fit() -> None:
    made: list[int] = []
    dropped: list[int] = []
    pool = SlotPool(4 * SLOT_STEP, on_new=lambda _, n: made.append(n), on_drop=lambda _, n: dropped.append(n))
    small = [pool.take(1) for _ in range(4)]
    assert None not in small
    assert pool.take(1) is None
    small.clear()
    gc.collect()
    large = pool.take(4 * SLOT_STEP)
    assert large is not None
    assert made == [SLOT_STEP] * 4 + [4 * SLOT_STEP]
    assert dropped == [SLOT_STEP] * 4
    assert pool.bytes == 4 * SLOT_STEP
    assert pool.take(5 * SLOT_STEP) is None


def test_copy() -> None:
    target = bytearray(5)
    copy(memoryview(target)[1:4], memoryview(b"abc"))
    copy(memoryview(target)[:0], memoryview(b""))
    assert bytes(target) == b"\0abc\0"
