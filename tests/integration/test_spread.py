"""A denoise worker on two processes: the picture of one, also when the degree changes on the way, and when one is killed."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.integration.harness import Service, service

SPEC = """
name: spread{gpus}
model: {{id: {model}}}
workload: {{rate: 1/s, shapes: [{{size: 32x32, frames: 9}}]}}
infra: local
policy: {{dispatch: genserve, scaling: static}}
stages: {{denoise: {{gpus_per_replica: {gpus}}}}}
"""
STEPS = 60  # enough for some words of progress on two processes, and the rest on whichever is quicker


def ranks(running: Service) -> list[psutil.Process]:
    """Processes that compute with the service's workers."""
    workers = [psutil.Process(worker.pid) for worker in running.workers("denoise")]
    return [child for worker in workers for child in worker.children() if "stages.models.rank" in child.cmdline()]


def degrees(running: Service) -> list[str]:
    return [event.why for event in running.status().events if event.kind == "degree"]


@pytest.mark.timeout(600)
@pytest.mark.families
def test_two_processes_make_the_picture_of_one_and_a_dead_one_is_replaced(
    tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    folder, made = tiny_model("flux"), []
    for gpus in (1, 2):
        with service(tmp_path / str(gpus), SPEC.format(gpus=gpus, model=folder)) as running:
            made.append(running.images([7], "first", size="32x32", num_inference_steps=STEPS))
            assert bool(degrees(running)) == (gpus == 2), "it was tried on one, too"
            if gpus == 2:
                (rank,) = ranks(running)
                rank.kill()
                made.append(running.images([7], "second", size="32x32", num_inference_steps=STEPS))
    assert made[0] == made[1] == made[2]
