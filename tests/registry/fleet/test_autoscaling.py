from __future__ import annotations

import pytest

from longshore.fleet.autoscaling import Scaling, autoscaler_annotations, check_scaling, predictor_fields
from longshore_runtime.errors import LongshoreError

PROMETHEUS = "http://prometheus:9090"


@pytest.mark.parametrize(
    ("scaling", "kind"),
    [
        (Scaling(), "none"),
        (Scaling(3, 3), "none"),
        (Scaling(1, 4, "cpu"), "hpa"),
        (Scaling(1, 4, prometheus=PROMETHEUS), "keda"),
        (Scaling(0, 4, prometheus=PROMETHEUS, query="gateway_requests"), "keda"),
    ],
)
def test_the_autoscaler_follows_from_the_numbers(scaling: Scaling, kind: str) -> None:
    check_scaling(scaling)
    assert autoscaler_annotations(scaling) == {"serving.kserve.io/autoscalerClass": kind}


def test_the_queue_is_this_versions_own() -> None:
    fields = predictor_fields(Scaling(1, 4, target=7, prometheus=PROMETHEUS), "m-1", "demo")
    assert (fields["min_replicas"], fields["max_replicas"]) == (1, 4)
    (metric,) = fields["auto_scaling"]["metrics"]
    assert metric["external"]["metric"] == {
        "backend": "prometheus",
        "serverAddress": PROMETHEUS,
        "query": 'sum(vllm:num_requests_waiting{namespace="demo",pod=~"m-1-predictor-.*"}) or vector(0)',
    }
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "7", "value": "7"}


def test_an_engine_that_does_not_tell_its_queue_is_scaled_by_something_else() -> None:
    with pytest.raises(
        LongshoreError, match="the metrics of trtllm do not tell how many requests wait; use --scale-on cpu, or"
    ):
        predictor_fields(Scaling(1, 4, prometheus=PROMETHEUS), "m-1", "demo", "trtllm")
    fields = predictor_fields(Scaling(1, 4, prometheus=PROMETHEUS, query="waiting"), "m-1", "demo", "trtllm")
    (metric,) = fields["auto_scaling"]["metrics"]
    assert metric["external"]["metric"]["query"] == "waiting"
    assert predictor_fields(Scaling(1, 4, "cpu"), "m-1", "demo", "trtllm")["scale_metric"] == "cpu"
    assert predictor_fields(Scaling(), "m-1", "demo", "trtllm") == {"min_replicas": 1, "max_replicas": 1}


def test_cpu_is_kserves_own_scaling() -> None:
    fields = predictor_fields(Scaling(1, 4, "cpu"), "m-1", "demo")
    assert fields == {"min_replicas": 1, "max_replicas": 4, "scale_metric": "cpu", "scale_target": 80}


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        (Scaling(3, 2), "--max 2 is less than --min 3; give --max 3"),
        (Scaling(0, 0), "--max 0 is less than --min 0; give --max 1"),
        (Scaling(0, 2, "cpu"), "scaling on CPU cannot go down to 0"),
        (Scaling(1, 2), "needs a Prometheus that scrapes the pods; name it: --prometheus"),
        (Scaling(0, 2, prometheus=PROMETHEUS), "there is no queue to wake them by; give --scale-query"),
    ],
)
def test_what_could_not_work_is_refused(scaling: Scaling, message: str) -> None:
    with pytest.raises(LongshoreError) as caught:
        check_scaling(scaling)
    assert message in str(caught.value)
