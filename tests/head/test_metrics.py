"""Prometheus text, made from the status."""

from prometheus_client.parser import text_string_to_metric_families

from disagctl.metrics import prometheus
from disagctl.views import HeadView, LoopView, StageView, StatusView, WorkerView


def values(view: StatusView) -> dict[tuple[str, ...], float]:
    """(name, label values …) → value."""
    families = text_string_to_metric_families(prometheus(view).decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_stages_and_the_loop() -> None:
    stage = StageView(
        "m", "denoise", 4, 3, switching=1, utilisation=0.75, load_s=40.0, switch_s=43.0, slo_attainment=0.9
    )
    loop = LoopView("hybrid", {}, {"m": 12.0}, {}, {"m.denoise@H100": 1.1}, 8.0, {"change": 2}, "why", 5, 1.5, 0.001)
    loop.mix, loop.seconds, loop.delays = {"m": {"8x8": 0.25}}, {"m.denoise@H100": {"8x8": 7.0}}, {"launch": 80.0}
    worker = WorkerView("n1.gpu0.1", "n1", "m", "denoise", "busy", 1, busy=True, utilisation=0.6)
    view = StatusView(
        "x", "ready", "http://h", HeadView(1, "h", "0", 0.0), stages=[stage], workers=[worker], loop=loop, usd_total=3.0
    )
    found = values(view)
    for name, value in {
        "workers_desired": 4, "workers_ready": 3, "workers_switching": 1, "workers_draining": 0, "utilisation_ratio": 0.75,
        "load_seconds": 40.0, "switch_seconds": 43.0, "slo_attainment_ratio": 0.9,
    }.items():  # fmt: skip
        assert found[f"disagctl_{name}", "m", "denoise"] == value
    assert ("disagctl_fetch_seconds", "m", "denoise") not in found, "what is not known is not told"
    assert found["disagctl_arrivals_per_minute", "m"] == 12.0
    assert found["disagctl_profile_correction", "m.denoise@H100"] == 1.1
    assert found["disagctl_decisions_total", "change"] == 2
    assert found["disagctl_switches_total",] == 5
    assert found["disagctl_tick_seconds",] == 0.0015
    assert found["disagctl_shape_arrivals_per_minute", "m", "8x8"] == 3.0
    assert found["disagctl_shape_seconds", "m.denoise@H100", "8x8"] == 7.0
    assert found["disagctl_delay_seconds", "launch"] == 80.0
    assert found["disagctl_worker_utilisation_ratio", "m", "n1", "denoise", "n1.gpu0.1"] == 0.6
    assert found["disagctl_usd_spent",] == 3.0
