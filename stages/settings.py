"""The one module of ``stages`` that reads the environment."""

import os


def worker_environment(gpu: int | None) -> dict[str, str]:
    """Environment of a worker process: ours, one torch thread, and exactly the GPU it was given (or none)."""
    env = dict(os.environ)
    env.setdefault("OMP_NUM_THREADS", "1")
    env.setdefault("MKL_NUM_THREADS", "1")
    env["PYTHONUNBUFFERED"] = "1"
    env["CUDA_VISIBLE_DEVICES"] = "" if gpu is None else str(gpu)
    return env
