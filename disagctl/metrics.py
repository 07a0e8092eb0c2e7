"""Prometheus text, made from the status view when asked for: nothing is counted twice."""

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from disagctl.views import StatusView

STAGE_GAUGES = {
    "workers_desired": ("desired", "Workers wanted"),
    "workers_ready": ("ready", "Workers that take tasks"),
    "queue_depth": ("queued", "Requests waiting for the stage"),
    "inflight": ("running", "Tasks out with workers"),
    "busy_ratio": ("busy", "Fraction of ready workers computing"),
    "stage_seconds": ("seconds_per_request", "Mean compute seconds of recent requests"),
    "stage_seconds_p95": ("p95_s", "95th percentile of compute seconds"),
}


def prometheus(status: StatusView) -> bytes:
    """All figures of one service."""
    registry = CollectorRegistry()
    for name, (field, text) in STAGE_GAUGES.items():
        gauge = Gauge(f"disagctl_{name}", text, ["model", "stage"], registry=registry)
        for stage in status.stages:
            value = getattr(stage, field)
            if value is not None:
                gauge.labels(stage.model, stage.stage).set(value)
    requests = Gauge(
        "disagctl_requests_total", "Requests by outcome since the service was made", ["outcome"], registry=registry
    )
    for outcome in ("accepted", "succeeded", "failed", "cancelled"):
        requests.labels(outcome).set(getattr(status.requests, outcome))
    for name, text, value in (
        ("fenced_results_total", "Late results refused", status.requests.fenced),
        ("redeliveries_total", "Tasks given to another worker", status.requests.redelivered),
        ("usd_per_hour", "Present price of all nodes", status.usd_per_hour),
        ("nodes", "Nodes that exist", len(status.nodes)),
    ):
        Gauge(f"disagctl_{name}", text, registry=registry).set(value)
    return generate_latest(registry)
