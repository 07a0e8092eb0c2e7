"""Prometheus text, made from the status view when asked for: nothing is counted twice."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from disagctl.views import LoopView, StatusView

STAGE_GAUGES: Final = {
    "workers_desired": ("desired", "Workers wanted"),
    "workers_ready": ("ready", "Workers that take tasks"),
    "workers_switching": ("switching", "Workers on their way into the stage"),
    "workers_draining": ("draining", "Workers that finish their work before they leave the stage"),
    "queue_depth": ("queued", "Requests waiting for the stage"),
    "inflight": ("running", "Tasks out with workers"),
    "busy_ratio": ("busy", "Fraction of ready workers computing"),
    "utilisation_ratio": ("utilisation", "Fraction of the last minute that ready workers computed"),
    "stage_seconds": ("seconds_per_request", "Mean compute seconds of recent requests"),
    "stage_seconds_p95": ("p95_s", "95th percentile of compute seconds"),
    "slo_attainment_ratio": ("slo_attainment", "Recent results of the model that came within its objective"),
    "load_seconds": ("load_s", "Mean time to load the stage's weights"),
    "unpark_seconds": ("unpark_s", "Mean time to bring its weights back from host memory"),
    "switch_seconds": ("switch_s", "Mean time of a switch into the stage: finishing other work, then loading"),
    "batch_size": ("batch", "Mean number of requests in recent batches"),
    "fetch_seconds": ("fetch_s", "Mean time that inputs took to arrive"),
}


class StatusCollector(Collector):
    """One status as metrics."""

    def __init__(self, status: StatusView) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """All figures of one service."""
        yield from self._stages()
        yield self._workers()
        if self._status.loop is not None:
            yield from _loop(self._status.loop)
        yield self._cache()
        yield from self._classes()
        requests = CounterMetricFamily("disagctl_requests", "Requests by outcome", labels=["outcome"])
        for outcome in ("accepted", "succeeded", "failed", "cancelled"):
            requests.add_metric([outcome], getattr(self._status.requests, outcome))
        yield requests
        counts = self._status.requests
        yield CounterMetricFamily("disagctl_fenced_results", "Late results refused by this head", value=counts.fenced)
        yield CounterMetricFamily(
            "disagctl_redeliveries", "Tasks that this head gave to another worker", value=counts.redelivered
        )
        yield CounterMetricFamily(
            "disagctl_pauses", "Tasks that this head had stopped between two steps", value=counts.pauses
        )
        yield GaugeMetricFamily("disagctl_usd_per_hour", "Present price of all nodes", value=self._status.usd_per_hour)
        yield GaugeMetricFamily(
            "disagctl_usd_spent", "Dollars since the service was created", value=self._status.usd_total
        )
        yield GaugeMetricFamily("disagctl_nodes", "Nodes that exist", value=len(self._status.nodes))

    def _workers(self) -> Metric:
        labels = ["worker", "node", "model", "stage"]
        gauge = GaugeMetricFamily(
            "disagctl_worker_utilisation_ratio", "Fraction of the last minute that the worker computed", labels=labels
        )
        for worker in self._status.workers:
            if worker.utilisation is not None:
                gauge.add_metric([worker.id, worker.node, worker.model, worker.stage], worker.utilisation)
        return gauge

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

    def _classes(self) -> Iterator[Metric]:
        labels = ["model", "shape"]
        finished = CounterMetricFamily("disagctl_class_results", "Results by model and shape", labels=labels)
        attained = GaugeMetricFamily(
            "disagctl_class_slo_attainment_ratio",
            "Recent results within the objective, by model and shape",
            labels=labels,
        )
        for one in self._status.classes:
            finished.add_metric([one.model, one.shape], one.finished)
            if one.slo_attainment is not None:
                attained.add_metric([one.model, one.shape], one.slo_attainment)
        yield finished
        yield attained

    def _stages(self) -> Iterator[Metric]:
        for name, (field, text) in STAGE_GAUGES.items():
            gauge = GaugeMetricFamily(f"disagctl_{name}", text, labels=["model", "stage"])
            for stage in self._status.stages:
                value = getattr(stage, field)
                if value is not None:
                    gauge.add_metric([stage.model, stage.stage], value)
            yield gauge


def _loop(loop: LoopView) -> Iterator[Metric]:
    """What the control loop sees, does and costs."""
    arrivals = GaugeMetricFamily("disagctl_arrivals_per_minute", "Requests accepted, smoothed", labels=["model"])
    for model, rate in loop.arrivals_per_min.items():
        arrivals.add_metric([model], rate)
    yield arrivals
    shapes = GaugeMetricFamily(
        "disagctl_shape_arrivals_per_minute", "Of those, by what they ask for", labels=["model", "shape"]
    )
    for model, mix in loop.mix.items():
        for shape, share in mix.items():
            shapes.add_metric([model, shape], share * loop.arrivals_per_min.get(model, 0.0))
    yield shapes
    times = GaugeMetricFamily(
        "disagctl_shape_seconds", "Compute seconds of a request, as measured", labels=["role", "shape"]
    )
    for role, each in loop.seconds.items():
        for shape, seconds in each.items():
            times.add_metric([role, shape], seconds)
    yield times
    delays = GaugeMetricFamily(
        "disagctl_delay_seconds", "To load or drain a role, to launch a machine; expected until measured", labels=["of"]
    )
    for what, seconds in loop.delays.items():
        delays.add_metric([what], seconds)
    yield delays
    corrections = GaugeMetricFamily(
        "disagctl_profile_correction", "Measured over expected compute seconds", labels=["role"]
    )
    for role, factor in loop.corrections.items():
        corrections.add_metric([role], factor)
    yield corrections
    decisions = CounterMetricFamily("disagctl_decisions", "What the control loop decided", labels=["reason"])
    for reason, count in loop.decisions.items():
        decisions.add_metric([reason], count)
    yield decisions
    yield CounterMetricFamily("disagctl_switches", "Workers that changed their role", value=loop.switches)
    yield GaugeMetricFamily("disagctl_cooldown_seconds", "Until the loop may move again", value=loop.cooldown_s)
    yield GaugeMetricFamily("disagctl_tick_seconds", "Last look of the control loop", value=loop.tick_ms / 1000)


def prometheus(status: StatusView) -> bytes:
    """The exposition format."""
    registry = CollectorRegistry()
    registry.register(StatusCollector(status))
    return generate_latest(registry)
