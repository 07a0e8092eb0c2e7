"""torch tensors ↔ :class:`stages.parcel.Parcel`.

Besides tensors and plain values a parcel may hold what pipelines keep among them: tuples, sizes, dtypes, devices,
numpy arrays and scalars, and dicts with keys that are not strings. Each of these is written as ``{"$": kind, "v": …}``.
Anything else (a model, a picture, a function) is refused with ParcelError: what crosses the wire is data.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import torch

from stages.parcel import Leaf, Parcel, ParcelError, pack, unpack

KIND: Final = "$"
_VALUE: Final = "v"
_CPU: Final = torch.device("cpu")
_DTYPES: Final = {
    str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)
}


def pack_values(values: Mapping[str, Any], home: torch.device = _CPU) -> Parcel:
    """Pack a tree of values without copying the tensors that are contiguous and on the CPU.

    ``home`` is the device the stage computes on. A tensor that is kept on the CPU although ``home`` is an accelerator
    (schedulers do so on purpose) is marked, and stays on the CPU when unpacked.
    """
    return pack({str(key): _encode(value, home) for key, value in values.items()})


def unpack_values(parcel: Parcel, device: torch.device = _CPU) -> dict[str, Any]:
    """The tree with its tensors on ``device``.

    Tensors own their memory: a parcel may be a read-only mapping that others read too, or unaligned in a larger
    message, so onto the CPU this makes one copy, and onto an accelerator just the transfer.
    """
    return {key: _decode(value, device) for key, value in unpack(parcel).items()}


def is_plain(value: Any) -> bool:
    """Whether ``value`` can be packed."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, Mapping):
        return all(is_plain(key) and is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, _PLAIN + tuple(_ENCODERS))


_PLAIN: Final = (bool, int, float, str, bytes)


def _encode(value: Any, home: torch.device) -> Any:
    if isinstance(value, np.generic | np.ndarray):  # before float: np.float64 is one, and would lose its type
        return _encode_array(np.asarray(value), home, scalar=isinstance(value, np.generic))
    if value is None or isinstance(value, _PLAIN):
        return value
    if type(value) is list:
        return [_encode(item, home) for item in value]
    if isinstance(value, Mapping):
        return _encode_mapping(value, home)
    for kind, encoder in _ENCODERS.items():
        if isinstance(value, kind):
            return encoder(value, home)
    msg = f"a {type(value).__name__} cannot cross between stages"
    raise ParcelError(msg)


def _encode_mapping(value: Mapping[Any, Any], home: torch.device) -> dict[str, Any]:
    if all(isinstance(key, str) for key in value) and KIND not in value:
        return {key: _encode(item, home) for key, item in value.items()}
    return _tagged("items", [[_encode(key, home), _encode(item, home)] for key, item in value.items()])


def _encode_tensor(value: torch.Tensor, home: torch.device) -> Any:
    leaf = _leaf(value)
    return _tagged("cpu", leaf) if home.type != "cpu" and value.device.type == "cpu" else leaf


def _encode_array(value: np.ndarray[Any, Any], home: torch.device, *, scalar: bool) -> Any:
    try:
        tensor = torch.from_numpy(np.array(value))  # a copy: torch wants it writable
    except TypeError as err:
        msg = f"an array of {value.dtype} cannot cross between stages"
        raise ParcelError(msg) from err
    return _tagged("scalar" if scalar else "array", _leaf(tensor))


def _leaf(value: torch.Tensor) -> Leaf:
    flat = value.detach().to("cpu").contiguous().reshape(-1)
    flat = flat.as_strided((flat.numel(),), (1,))  # an expanded tensor of one element counts as contiguous
    data = flat.view(torch.uint8) if flat.numel() else torch.empty(0, dtype=torch.uint8)
    return Leaf(tuple(value.shape), str(value.dtype).removeprefix("torch."), memoryview(data.numpy()))


def _tagged(kind: str, value: Any) -> dict[str, Any]:
    return {KIND: kind, _VALUE: value}


_ENCODERS: Final[dict[type | tuple[type, ...], Callable[[Any, torch.device], Any]]] = {
    torch.Tensor: _encode_tensor,
    torch.Size: lambda value, _: _tagged("size", list(value)),  # before tuple: it is one
    tuple: lambda value, home: _tagged("tuple", [_encode(item, home) for item in value]),
    torch.dtype: lambda value, _: _tagged("dtype", str(value).removeprefix("torch.")),
    torch.device: lambda value, home: _tagged("device", "home" if value.type == home.type else value.type),
    np.generic: lambda value, home: _encode_array(np.asarray(value), home, scalar=True),
    np.ndarray: lambda value, home: _encode_array(value, home, scalar=False),
}


def _decode(value: Any, device: torch.device) -> Any:
    if isinstance(value, Leaf):
        return _tensor(value, device)
    if isinstance(value, list):
        return [_decode(item, device) for item in value]
    if not isinstance(value, dict):
        return value
    if KIND not in value:
        return {key: _decode(item, device) for key, item in value.items()}
    decoder = _DECODERS.get(value[KIND])
    if decoder is None:
        msg = f"a parcel holds a value of unknown kind {value[KIND]!r}"
        raise ParcelError(msg)
    return decoder(value.get(_VALUE), device)


def _tensor(leaf: Leaf, device: torch.device) -> torch.Tensor:
    dtype = _dtype(leaf.dtype)
    size = 1
    for length in leaf.shape:
        size *= length
    if size * dtype.itemsize != leaf.data.nbytes:
        msg = f"a tensor of shape {leaf.shape} and {leaf.dtype} does not have {leaf.data.nbytes} bytes"
        raise ParcelError(msg)
    flat = torch.empty(size, dtype=dtype)
    if size:
        target = memoryview(flat.view(torch.uint8).numpy())
        target[:] = leaf.data
    return flat.reshape(leaf.shape).to(device)


def _dtype(name: str) -> torch.dtype:
    try:
        return _DTYPES[name]
    except KeyError as err:
        msg = f"a parcel holds a tensor of unknown dtype {name!r}"
        raise ParcelError(msg) from err


def _numpy(leaf: Any, device: torch.device) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = _tensor(leaf, _CPU).numpy()
    return array


_DECODERS: Final[dict[str, Callable[[Any, torch.device], Any]]] = {
    "cpu": lambda value, _: _tensor(value, _CPU),
    "tuple": lambda value, device: tuple(_decode(item, device) for item in value),
    "size": lambda value, _: torch.Size(value),
    "dtype": lambda value, _: _dtype(value),
    "device": lambda value, device: device if value == "home" else torch.device(value),
    "items": lambda value, device: {_decode(key, device): _decode(item, device) for key, item in value},
    "array": _numpy,
    "scalar": lambda value, device: _numpy(value, device)[()],
}
