"""How the number of a version's pods follows its load: KServe's HPA on CPU, or KEDA on the engine's own queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from longshore.fleet.yaml import Object
from longshore_runtime.errors import LongshoreError

DEFAULT_TARGETS = {"cpu": 80, "queue": 4}
"""Percent of the CPU request; requests that wait, per pod."""

WAITING: Mapping[str, str | None] = {
    "vllm": "vllm:num_requests_waiting",
    "llamacpp": "llamacpp:requests_deferred",
    "sglang": "sglang:num_queue_reqs",
    "tgi": "tgi_queue_size",
    "trtllm": None,
}
"""What engines call the number of requests that wait, in their metrics; None where these do not tell it."""

SETTLE_SECONDS = 300
"""How long a lower load must last before pods are taken away: a new one costs a cold start."""


@dataclass(frozen=True)
class Scaling:
    """`least` to `most` pods, by `signal`; `target` per pod (its default where None).

    `queue` asks the Prometheus at `prometheus` for the requests that wait in this version's pods, or for `query`.
    """

    least: int = 1
    most: int = 1
    signal: Literal["cpu", "queue"] = "queue"
    target: int | None = None
    prometheus: str | None = None
    query: str | None = None


def check_scaling(scaling: Scaling) -> None:
    """Raise LongshoreError for a combination that could not work in a cluster."""
    if scaling.most < max(scaling.least, 1):
        raise LongshoreError(
            f"--max {scaling.most} is less than --min {scaling.least}", f"give --max {max(scaling.least, 1)} or more"
        )
    if scaling.least == scaling.most:
        return
    if scaling.signal == "cpu" and scaling.least == 0:
        raise LongshoreError("scaling on CPU cannot go down to 0 pods", "use --min 1, or --scale-on queue with --scale-query")
    if scaling.signal == "queue" and scaling.prometheus is None:
        raise LongshoreError(
            "scaling on the queue needs a Prometheus that scrapes the pods",
            "name it: --prometheus http://prometheus.monitoring:9090, or use --scale-on cpu",
        )
    if scaling.signal == "queue" and scaling.least == 0 and scaling.query is None:
        raise LongshoreError(
            "where there are no pods, there is no queue to wake them by",
            "give --scale-query with a metric of the gateway, or --min 1",
        )


def autoscaler_annotations(scaling: Scaling) -> dict[str, str]:
    """What the InferenceService's metadata says about scaling. Without `none` KServe makes an HPA even for a fixed number."""
    fixed = scaling.least == scaling.most
    kind = "none" if fixed else "hpa" if scaling.signal == "cpu" else "keda"
    return {"serving.kserve.io/autoscalerClass": kind}


def predictor_fields(scaling: Scaling, name: str, namespace: str, engine: str = "vllm") -> Object:
    """The fields of the predictor, by the names that the SDK's typed model has for them."""
    fields: Object = {"min_replicas": scaling.least, "max_replicas": scaling.most}
    if scaling.least == scaling.most:
        return fields
    target = scaling.target or DEFAULT_TARGETS[scaling.signal]
    if scaling.signal == "cpu":
        return fields | {"scale_metric": "cpu", "scale_target": target}
    if WAITING[engine] is None and scaling.query is None:
        raise LongshoreError(
            f"the metrics of {engine} do not tell how many requests wait",
            "use --scale-on cpu, or give --scale-query with a metric of the gateway",
        )
    return fields | {"auto_scaling": _queue_metric(scaling, target, name, namespace, WAITING[engine])}


def _queue_metric(scaling: Scaling, target: int, name: str, namespace: str, metric: str | None) -> Object:
    """The metric, with a target per pod.

    KServe 0.20 hands KEDA the target's `value` and drops its type, and KEDA's default is AverageValue. So that type is
    what is asked for, with the number in both places: a KServe that keeps the type changes nothing.
    """
    query = scaling.query or f'sum({metric}{{namespace="{namespace}",pod=~"{name}-predictor-.*"}}) or vector(0)'
    source = {"backend": "prometheus", "serverAddress": scaling.prometheus, "query": query}
    wanted = {"type": "AverageValue", "averageValue": str(target), "value": str(target)}
    return {
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": SETTLE_SECONDS}},
        "metrics": [{"type": "External", "external": {"metric": source, "target": wanted}}],
    }
