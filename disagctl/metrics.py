"""Prometheus text, made from the status view when asked for: nothing is counted twice."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from disagctl.views import StatusView

STAGE_GAUGES: Final = {
    "workers_desired": ("desired", "Workers wanted"),
    "workers_ready": ("ready", "Workers that take tasks"),
    "queue_depth": ("queued", "Requests waiting for the stage"),
    "inflight": ("running", "Tasks out with workers"),
    "busy_ratio": ("busy", "Fraction of ready workers computing"),
    "stage_seconds": ("seconds_per_request", "Mean compute seconds of recent requests"),
    "stage_seconds_p95": ("p95_s", "95th percentile of compute seconds"),
}


class StatusCollector(Collector):
    """One status as metrics."""

    def __init__(self, status: StatusView) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """All figures of one service."""
        yield from self._stages()
        yield self._cache()
        requests = CounterMetricFamily("disagctl_requests", "Requests by outcome", labels=["outcome"])
        for outcome in ("accepted", "succeeded", "failed", "cancelled"):
            requests.add_metric([outcome], getattr(self._status.requests, outcome))
        yield requests
        counts = self._status.requests
        yield CounterMetricFamily("disagctl_fenced_results", "Late results refused by this head", value=counts.fenced)
        yield CounterMetricFamily(
            "disagctl_redeliveries", "Tasks that this head gave to another worker", value=counts.redelivered
        )
        yield GaugeMetricFamily("disagctl_usd_per_hour", "Present price of all nodes", value=self._status.usd_per_hour)
        yield GaugeMetricFamily("disagctl_nodes", "Nodes that exist", value=len(self._status.nodes))

    def _cache(self) -> Metric:
        """Hits over all results is the hit rate."""
        family = CounterMetricFamily(
            "disagctl_encoder_cache",
            "Results of a stage with a cache, by outcome",
            labels=["model", "stage", "outcome"],
        )
        for stage in self._status.stages:
            if stage.computed or stage.remembered:
                family.add_metric([stage.model, stage.stage, "miss"], stage.computed)
                family.add_metric([stage.model, stage.stage, "hit"], stage.remembered)
        return family

    def _stages(self) -> Iterator[Metric]:
        for name, (field, text) in STAGE_GAUGES.items():
            gauge = GaugeMetricFamily(f"disagctl_{name}", text, labels=["model", "stage"])
            for stage in self._status.stages:
                value = getattr(stage, field)
                if value is not None:
                    gauge.add_metric([stage.model, stage.stage], value)
            yield gauge


def prometheus(status: StatusView) -> bytes:
    """The exposition format."""
    registry = CollectorRegistry()
    registry.register(StatusCollector(status))
    return generate_latest(registry)
