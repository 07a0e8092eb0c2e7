from typing import Any

import numpy as np
import pytest
import torch

from stages.models.tensors import is_plain, pack_values, unpack_values
from stages.parcel import ParcelError
from tests.models.kit import crossed

DTYPES = ["float32", "float16", "bfloat16", "float64", "int64", "int32", "uint8", "bool", "float8_e4m3fn", "complex64"]


def there_and_back(values: dict[str, Any]) -> dict[str, Any]:
    return unpack_values(crossed(pack_values(values)))


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype(name: str) -> None:
    tensor = torch.arange(24).reshape(2, 3, 4).to(getattr(torch, name))
    back = there_and_back({"x": tensor})["x"]
    assert back.dtype == tensor.dtype
    assert back.shape == tensor.shape
    assert torch.equal(back.view(torch.uint8), tensor.contiguous().view(torch.uint8))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.5),
        torch.empty(0, 4),
        torch.arange(12).reshape(3, 4).T,
        torch.ones(1).expand(5),
        torch.ones(()).expand(1),
        torch.arange(10)[::3],
        torch.full((2,), float("nan")),
        torch.ones(2, requires_grad=True),
    ],
)
def test_every_shape(tensor: torch.Tensor) -> None:
    back = there_and_back({"x": tensor})["x"]
    assert back.shape == tensor.shape
    assert torch.equal(back.nan_to_num(), tensor.detach().nan_to_num())


def test_plain_values_keep_their_types() -> None:
    values = {
        "none": None,
        "list": [1, 2.5, "x", b"y", True, None],
        "tuple": (1, (2, [3, (4,)])),
        "size": torch.Size([1, 2]),
        "dtype": torch.bfloat16,
        "dict": {"a": {"b": (torch.ones(2),)}},
        "numbers": {3: "three", (1, 2): "pair"},
        "marked": {"$": "tuple", "v": [1]},
        "big": 2**64 - 1,
    }
    back = there_and_back(values)
    assert torch.equal(back["dict"]["a"]["b"][0], torch.ones(2))
    back["dict"] = values["dict"]
    assert back == values
    assert isinstance(back["size"], torch.Size)
    assert isinstance(back["tuple"][1], tuple)


def test_numpy() -> None:
    array = np.arange(6, dtype=np.float64).reshape(2, 3)
    back = there_and_back({"array": array, "scalar": np.float64(0.1), "integer": np.int64(7)})
    assert back["array"].dtype == array.dtype
    assert np.array_equal(back["array"], array)
    assert isinstance(back["scalar"], np.float64)
    assert back["scalar"] == np.float64(0.1)
    assert isinstance(back["integer"], np.int64)


def test_packing_copies_nothing() -> None:
    tensor = torch.zeros(4)
    parcel = pack_values({"x": tensor})
    tensor[0] = 1.0
    assert bytes(parcel.buffers[0]) == tensor.numpy().tobytes()


def test_unpacked_tensors_own_their_memory() -> None:
    parcel = pack_values({"x": torch.zeros(4)})
    unpack_values(parcel)["x"].add_(1)
    assert not any(parcel.buffers[0])


def test_devices_follow_the_worker() -> None:
    assert there_and_back({"d": torch.device("cpu")})["d"] == torch.device("cpu")
    parcel = pack_values({"d": torch.device("cuda", 1), "x": torch.ones(2)}, torch.device("cuda", 1))
    back = unpack_values(parcel, torch.device("meta"))
    assert back["d"] == torch.device("meta")
    assert back["x"].device.type == "cpu"  # kept on the CPU beside an accelerator: stays there


@pytest.mark.parametrize("value", [object(), torch.nn.Linear(1, 1), lambda: None, {1, 2}, np.array(["text"])])
def test_objects_do_not_cross(value: Any) -> None:
    with pytest.raises(ParcelError):
        pack_values({"x": [value]})


def test_is_plain() -> None:
    assert is_plain({"a": [(torch.ones(1), None), np.float32(1)]})
    assert not is_plain([object()])


@pytest.mark.parametrize("tree", [{"x": {"$": "code", "v": "x"}}, {"x": {"$": "dtype", "v": "nn"}}])
def test_unknown_kinds_are_refused(tree: dict[str, Any]) -> None:
    from stages.parcel import pack

    with pytest.raises(ParcelError):
        unpack_values(pack(tree))
