"""A parcel in a file: a length, the description as msgpack, then the tensors' bytes one after another."""

from pathlib import Path
from typing import Final

import msgspec

from stages.parcel import Parcel, ParcelError, seal, verify
from stages.protocol import TensorDesc

_LENGTH: Final = 8  # bytes of the little-endian length in front


class _Head(msgspec.Struct, array_like=True):
    tree: bytes
    tensors: tuple[TensorDesc, ...]


def write_parcel(path: Path, parcel: Parcel) -> None:
    """Write, replacing what is there."""
    parcel = seal(parcel)
    head = msgspec.msgpack.encode(_Head(parcel.tree, parcel.tensors))
    with path.open("wb") as file:
        file.write(len(head).to_bytes(_LENGTH, "little") + head)
        for buffer in parcel.buffers:
            file.write(buffer)


def read_parcel(path: Path) -> Parcel:
    """Read all of it. Raises ParcelError when the file is not what was written."""
    view = memoryview(path.read_bytes())
    at = _LENGTH + int.from_bytes(view[:_LENGTH], "little")
    try:
        head = msgspec.msgpack.decode(view[_LENGTH:at], type=_Head)
    except msgspec.DecodeError as err:
        msg = f"{path} holds no parcel: {err}"
        raise ParcelError(msg) from err
    buffers = []
    for desc in head.tensors:
        buffers.append(view[at : at + desc.nbytes])
        at += desc.nbytes
    verify(head.tensors, buffers)
    return Parcel(head.tree, head.tensors, tuple(buffers))
