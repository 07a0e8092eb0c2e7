"""What a node has: processors, memory, GPUs. GPUs are found through nvidia-ml-py, without importing torch."""

import os
import socket
from pathlib import Path

import psutil

from stages.protocol import GpuInfo
from stages.settings import visible_gpus


def gpus() -> tuple[GpuInfo, ...]:
    """The NVIDIA GPUs of this machine that we may use; none where there is no driver."""
    try:
        import pynvml  # optional at run time: a machine without a driver needs none of it
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        found = []
        visible = visible_gpus()
        for index in range(pynvml.nvmlDeviceGetCount()):
            if visible is not None and index not in visible:
                continue
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            name = pynvml.nvmlDeviceGetName(handle)
            memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
            found.append(GpuInfo(index, name if isinstance(name, str) else name.decode(), memory))
        return tuple(found)
    finally:
        pynvml.nvmlShutdown()


def host_id() -> str:
    """Names this machine (this boot of it): workers with equal ids can share memory."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    suffix = boot.read_text().strip()[:8] if boot.exists() else "0"
    return f"{socket.gethostname()}-{suffix}"


def address_towards(endpoint: str) -> str:
    """Our own address on the way to ``tcp://host:port``; nothing is sent. Loopback where there is no way."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except (OSError, ValueError):
        return "127.0.0.1"


def cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Physical memory."""
    return int(psutil.virtual_memory().total)
