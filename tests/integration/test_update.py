"""``up`` on a live service: a changed spec is applied while requests run, and none is lost."""

from pathlib import Path

from disagctl import lifecycle
from disagctl.admin_client import admin
from disagctl.spec import parse_spec
from tests.integration.harness import SYNTHETIC, Service, service

TEXT = SYNTHETIC.format(name="live", encode_bytes=100, denoise_bytes=100, artifact_bytes=0, mode="auto")


def apply(running: Service, text: str) -> None:
    running.spec = parse_spec(text, base=running.home)
    running.up()


def counts(running: Service) -> dict[str, tuple[int, int]]:
    return {s.stage: (s.desired, s.ready) for s in running.status().stages}


def test_changes_are_applied_under_load(tmp_path: Path) -> None:
    with service(tmp_path, TEXT) as running:
        pid = running.head_pid()
        assert lifecycle.diff(running.spec) == []
        running.up()
        assert running.head_pid() == pid, "nothing changed: nothing happens"

        fewer = TEXT.replace("denoise: {replicas: 3}", "denoise: {replicas: 1}")
        expected = running.images(range(20), "before")
        with running.under_way(range(20), "fewer") as pictures:
            apply(running, fewer)
            assert pictures.result() == expected
        running.until(lambda s: sum(w.stage == "denoise" for w in s.workers) == 1)
        assert counts(running)["denoise"] == (1, 1)

        slower = fewer.replace("denoise: {seconds: 0.1,", "denoise: {seconds: 0.12,")
        pids = {w.pid for w in running.status().workers}
        with running.under_way(range(20), "slower") as pictures:
            apply(running, slower)
            assert pictures.result() == expected
        assert {w.pid for w in running.status().workers} == pids, "workers drain and load the changed model"


def test_scale_pins_and_survives_the_head(tmp_path: Path) -> None:
    with service(tmp_path, TEXT) as running:
        with admin(running.where) as client:
            assert client.post("/admin/v1/scale", json={"counts": {"encode": 4}}).status_code == 200
            refused = client.post("/admin/v1/scale", json={"counts": {"upscale": 1}})
            assert refused.status_code == 400
            assert "upscale" in refused.json()["error"]["message"]
        running.until(lambda s: next(v for v in s.stages if v.stage == "encode").ready == 4)
        running.kill_head()
        running.up()
        assert counts(running)["encode"] == (4, 4)
        with admin(running.where) as client:
            client.post("/admin/v1/scale", json={"counts": {}, "auto": True})
        running.until(lambda s: sum(w.stage == "encode" for w in s.workers) == 2)
