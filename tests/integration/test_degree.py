"""A worker with two GPUs: a request begins on both, ``genserve`` orders another number on the way, and everybody can see it."""

from pathlib import Path

from disagctl.admin_client import admin
from disagctl.ui.job import progress_line
from disagctl.views import JobView, StatusView, WorkerView
from tests.integration.harness import Service, service
from tests.integration.test_preempt import content, post, view

SPEC = """
name: degree
model:
  id: synthetic
  stages: {encode: {}, denoise: {seconds_per_step: 0.5, exchange: 1.0}, decode: {}}
workload: {rate: 1/s, shapes: [{size: 64x64}]}
infra: local
policy: {dispatch: genserve, scaling: static}
stages: {denoise: {gpus_per_replica: 2}}
"""
STEPS = 12


def denoiser(status: StatusView) -> WorkerView:
    (found,) = [worker for worker in status.workers if worker.stage == "denoise"]
    return found


def changes(running: Service) -> list[str]:
    return [event.why for event in running.status().events if event.kind == "degree"]


def test_a_request_changes_its_degree_by_an_order_and_it_shows(tmp_path: Path) -> None:
    with service(tmp_path, SPEC) as running, admin(running.where, timeout_s=60.0) as client:
        idle = denoiser(running.status())
        assert (idle.gpus, idle.degree) == (2, None)
        job = post(client, 1, size="64x64", num_inference_steps=STEPS)
        running.until(lambda status: denoiser(status).degree == 2)
        running.until(lambda status: denoiser(status).degree == 1)
        shown = JobView(**{**view(client, job), "items": []})
        assert (shown.status, shown.degree) == ("running", 1)
        assert progress_line(shown).endswith(f"/{STEPS} on 1 GPU")
        assert changes(running) == [f"{job}: denoise on 1 GPU of {idle.id}"]
        picture = content(client, job)

        again = post(client, 1, size="64x64", num_inference_steps=STEPS)
        running.until(lambda status: denoiser(status).degree is not None)
        assert denoiser(running.status()).degree == 1, "what was found out holds for the next one"
        assert content(client, again) == picture
        assert len(changes(running)) == 1
