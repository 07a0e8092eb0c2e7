"""The one module of ``stages`` that reads the environment."""

import os
from collections.abc import Iterable
from typing import Final

FROZEN_PEER_S: Final = 8  # Mooncake waits half a minute for a peer that does not move, unless told otherwise


def worker_environment(gpus: Iterable[int]) -> dict[str, str]:
    """Environment of a worker process: ours, one torch thread, and exactly the GPUs it was given (or none)."""
    env = dict(os.environ)
    env.setdefault("OMP_NUM_THREADS", "1")
    env.setdefault("MKL_NUM_THREADS", "1")
    env["PYTHONUNBUFFERED"] = "1"
    env.setdefault("MC_TCP_PROGRESS_TIMEOUT_SEC", str(FROZEN_PEER_S))
    env.setdefault("MC_LOG_LEVEL", "ERROR")
    env["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu) for gpu in gpus)
    env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-ml-py counts them
    return env


def visible_gpus() -> set[int] | None:
    """GPU indices that we were given (``CUDA_VISIBLE_DEVICES``, set by Slurm among others); None: all of them."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return None
    return {int(part) for part in listed.split(",") if part.strip().isdigit()}


def test_faults() -> str:
    """``DISAGCTL_TEST_FAULTS``: JSON of :class:`stages.transport.faulty.Faults`, set by tests and benchmarks alone."""
    return os.environ.get("DISAGCTL_TEST_FAULTS", "")


def groups_on_this_host() -> None:
    """Processes that compute together listen on the loopback interface only. Before the first of their groups is made."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")


def rank_environment(rank: int | None) -> dict[str, str] | None:
    """What a process that computes with this one is started with; it sees the GPU of its ``rank`` among those that we see.

    None: there are not so many. ``rank`` None: it computes on the CPU.
    """
    env = dict(os.environ)
    if rank is not None:
        shown = env.get("CUDA_VISIBLE_DEVICES", "").split(",")
        if rank >= len(shown):
            return None
        env["CUDA_VISIBLE_DEVICES"] = shown[rank]
    return env
