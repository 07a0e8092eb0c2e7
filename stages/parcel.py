"""A parcel: what one stage hands to the next, as a tree of plain values with tensors pulled out as raw buffers.

The tree is msgpack in which each tensor is ``Ext(1, index)``; the buffers are bytes-like and C-contiguous. This module
knows neither torch nor numpy: adapters turn their tensors into buffers (``stages.models.tensors``), transports carry them.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from stages.checksum import Buffer, checksum
from stages.protocol import TensorDesc

TENSOR_EXT: Final = 1
MAX_TENSORS: Final = 4096
MAX_TREE_BYTES: Final = 256 << 10
ALIGN: Final = 64

_plain: Final = msgspec.msgpack.Encoder()


class ParcelError(ValueError):
    """The bytes are not what their description promised."""


class Leaf:
    """A tensor in a tree that is being packed or was unpacked: description without checksum, and the bytes.

    Not a dataclass: msgspec would encode one as a map of its own accord instead of asking our hook.
    """

    __slots__ = ("data", "dtype", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: str, data: memoryview) -> None:
        self.shape = shape
        self.dtype = dtype
        self.data = data


class Parcel(msgspec.Struct, frozen=True):
    """``tensors[i]`` describes ``buffers[i]``; ``tree`` says where they belong. ``sealed``: the checksums are there."""

    tree: bytes
    tensors: tuple[TensorDesc, ...]
    buffers: tuple[memoryview, ...]
    sealed: bool = True

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, without alignment."""
        return sum(t.nbytes for t in self.tensors) if self.tensors else 0


def pack(values: dict[str, Any]) -> Parcel:
    """Pack a tree of None, bool, int, float, str, bytes, list, tuple, dict[str, …] and :class:`Leaf`.

    Raises ParcelError for anything else: what crosses the wire is data, never an object. It comes without checksums:
    whoever keeps or sends it seals it, which need not be the thread that computes.
    """
    try:
        tree = _plain.encode(values)
    except TypeError:  # there are tensors in it, or what cannot cross
        return _pack(values)
    return Parcel(_checked(tree, 0), (), ())


def _pack(values: dict[str, Any]) -> Parcel:
    leaves: list[Leaf] = []

    def hook(obj: object) -> msgspec.msgpack.Ext:
        if not isinstance(obj, Leaf):
            msg = f"a {type(obj).__name__} cannot cross between stages"
            raise ParcelError(msg)
        leaves.append(obj)
        return msgspec.msgpack.Ext(TENSOR_EXT, (len(leaves) - 1).to_bytes(4, "little"))

    try:
        tree = msgspec.msgpack.encode(values, enc_hook=hook)
    except TypeError as err:
        raise ParcelError(str(err)) from err
    tree = _checked(tree, len(leaves))
    buffers = tuple(leaf.data.cast("B") if leaf.data.nbytes else memoryview(b"") for leaf in leaves)
    tensors = tuple(
        TensorDesc(leaf.shape, leaf.dtype, buf.nbytes, 0) for leaf, buf in zip(leaves, buffers, strict=True)
    )
    return Parcel(tree, tensors, buffers, sealed=not tensors)


def _checked(tree: bytes, tensors: int) -> bytes:
    if len(tree) > MAX_TREE_BYTES or tensors > MAX_TENSORS:
        msg = f"a parcel of {tensors} tensors and {len(tree)} bytes of plain values is over the limit"
        raise ParcelError(msg)
    return tree


def seal(parcel: Parcel) -> Parcel:
    """The parcel with its checksums. From here on its bytes must not change."""
    if parcel.sealed:
        return parcel
    tensors = tuple(
        msgspec.structs.replace(desc, checksum=checksum(buffer))
        for desc, buffer in zip(parcel.tensors, parcel.buffers, strict=True)
    )
    return Parcel(parcel.tree, tensors, parcel.buffers)


def copied(parcel: Parcel) -> Parcel:
    """The parcel with buffers of its own."""
    return Parcel(parcel.tree, parcel.tensors, tuple(memoryview(bytes(b)) for b in parcel.buffers), parcel.sealed)


def unpack(parcel: Parcel) -> dict[str, Any]:
    """The tree with a :class:`Leaf` at every tensor. Raises ParcelError when it does not fit its description."""

    def ext(code: int, data: memoryview) -> Leaf:
        index = int.from_bytes(data, "little")
        if code != TENSOR_EXT or index >= len(parcel.tensors):
            msg = f"unknown extension {code} or tensor {index} in a parcel of {len(parcel.tensors)}"
            raise ParcelError(msg)
        desc = parcel.tensors[index]
        return Leaf(desc.shape, desc.dtype, parcel.buffers[index])

    try:
        tree = msgspec.msgpack.decode(parcel.tree, type=dict[str, Any], ext_hook=ext)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        msg = f"unreadable parcel: {err}"
        raise ParcelError(msg) from err
    return tree


def verify(tensors: Sequence[TensorDesc], buffers: Sequence[Buffer]) -> None:
    """Check lengths and checksums. Raises ParcelError naming the first tensor that differs."""
    if len(tensors) != len(buffers):
        msg = f"{len(buffers)} buffers for {len(tensors)} tensors"
        raise ParcelError(msg)
    for i, (desc, buf) in enumerate(zip(tensors, buffers, strict=True)):
        nbytes = memoryview(buf).nbytes
        if nbytes != desc.nbytes:
            msg = f"tensor {i}: {nbytes} bytes arrived, {desc.nbytes} were promised"
            raise ParcelError(msg)
        if checksum(buf) != desc.checksum:
            msg = f"tensor {i}: checksum differs"
            raise ParcelError(msg)


def layout(tensors: Sequence[TensorDesc]) -> tuple[list[int], int]:
    """Offsets of the tensors in one flat region, each aligned to ``ALIGN``, and the region's length in bytes."""
    offsets, end = [], 0
    for desc in tensors:
        offsets.append(end)
        end += -(-desc.nbytes // ALIGN) * ALIGN
    return offsets, end
