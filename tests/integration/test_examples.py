"""What people copy: the hand-written InferenceServices are taken by KServe and get our initializer and our runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from longshore.fleet.objects import serving_runtime, storage_container
from longshore.fleet.yaml import dump_yaml
from longshore_runtime.serve.__main__ import build_parser
from testbed.cluster import Cluster, eventually

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "kserve").glob("*.yaml"))
APPLY = ("apply", "--server-side", "--force-conflicts", "--validate=strict", "--field-manager=longshore", "--filename=-")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_becomes_a_pod_of_ours(control_plane: Cluster, namespace: str, path: Path) -> None:
    control_plane.kubectl(*APPLY, input=dump_yaml([serving_runtime("longshore"), storage_container("longshore")]))
    service = yaml.safe_load(path.read_text())
    account = service["spec"]["predictor"]["serviceAccountName"]
    control_plane.kubectl("-n", namespace, "create", "serviceaccount", account)
    control_plane.kubectl("-n", namespace, *APPLY, input=path.read_text())
    eventually(lambda: bool(control_plane.read("-n", namespace, "pods")["items"]), "the pod is made")
    (pod,) = control_plane.read("-n", namespace, "pods")["items"]
    (initializer,) = pod["spec"]["initContainers"]
    assert initializer["image"].startswith("longshore/storage-initializer:")
    assert initializer["args"] == [service["spec"]["predictor"]["model"]["storageUri"], "/mnt/models"]
    (engine,) = pod["spec"]["containers"]
    assert engine["image"].startswith("longshore/runtime:")
    options, for_engine = build_parser().parse_known_args(engine["args"])
    assert options.served_model_name == service["metadata"]["name"]
    assert for_engine == [argument for argument in service["spec"]["predictor"]["model"]["args"] if "served" not in argument]
    control_plane.kubectl("-n", namespace, "delete", "inferenceservice", service["metadata"]["name"], "--wait=false")
