"""How much memory this process holds, seen from outside the engine: adapters need not tell.

torch is asked if the engine brought it, and never imported here. On CUDA the allocator's figures are taken: what it has
reserved, since that is what a card must have. On the CPU it is resident memory over what there was before the load.
"""

import gc
import resource
import sys
from pathlib import Path
from typing import Any, Final

import psutil

_CLEAR: Final = Path("/proc/self/clear_refs")  # Linux: writing 5 resets the peak of resident memory
_STATUS: Final = Path("/proc/self/status")
_SHORT: Final = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8", "float8_e4m3fn": "fp8"}


class Meter:
    """Peak memory since ``reset``, over the process as it was when this was made."""

    def __init__(self, device: str) -> None:
        self._cuda = device if device.startswith("cuda") else None
        self._base = _resident()

    def reset(self) -> None:
        """Begin a new peak."""
        gc.collect()
        if self._cuda is not None and (torch := _torch()) is not None:
            torch.cuda.init()  # its statistics do not exist before
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._cuda)
        elif _CLEAR.exists():
            _CLEAR.write_text("5")

    def peak_bytes(self) -> int:
        """The most held since then, weights included."""
        if self._cuda is not None and (torch := _torch()) is not None:
            return int(torch.cuda.max_memory_reserved(self._cuda))
        return max(_peak_resident() - self._base, 0)

    def wait(self) -> None:
        """Until the device has done what it was told: its clock is not ours."""
        if self._cuda is not None and (torch := _torch()) is not None:
            torch.cuda.synchronize(self._cuda)


def weights() -> tuple[int, str]:
    """(bytes of all parameters alive, what most of them are held in); (0, "") for an engine without torch."""
    totals: dict[str, int] = {}
    held = (part for one in parameters() for part in tensors_of(one))
    for storage, dtype in {_storage(one): one.dtype for one in held}.items():
        totals[str(dtype)] = totals.get(str(dtype), 0) + storage[1]
    if not totals:
        return 0, ""
    most = max(totals, key=lambda name: totals[name]).removeprefix("torch.")
    return sum(totals.values()), _SHORT.get(most, most)


def parameters() -> list[Any]:
    """Every ``torch.nn.Parameter`` of this process that has memory behind it; quantised ones are marked instead."""
    torch = _torch()
    if torch is None:
        return []
    tensors = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    return [
        one
        for one in tensors
        if (issubclass(type(one), torch.nn.Parameter) or getattr(one, "_is_param", False)) and one.device.type != "meta"
    ]


def tensors_of(parameter: Any) -> list[Any]:
    """The tensors that hold a parameter: itself, or a quantised one's numbers and scales."""
    if hasattr(parameter, "__tensor_flatten__"):  # torchao
        return [getattr(parameter, name) for name in parameter.__tensor_flatten__()[0]]
    state = getattr(parameter, "quant_state", None)  # bitsandbytes
    return [parameter] if state is None else [parameter, state.absmax]


def _storage(parameter: Any) -> tuple[int, int]:
    storage = parameter.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


def _torch() -> Any:
    return sys.modules.get("torch")


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _peak_resident() -> int:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) << 10
