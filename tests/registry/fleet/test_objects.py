from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from longshore._version import __version__
from longshore.adapters import Composition
from longshore.fleet.autoscaling import WAITING, Scaling
from longshore.fleet.objects import (
    OVERLAP,
    PORT,
    PROFILES,
    Placement,
    desired_objects,
    download_container,
    serving_runtime,
    storage_container,
)
from longshore.fleet.yaml import dump_yaml
from longshore.version import Version
from longshore_runtime.errors import LongshoreError
from longshore_runtime.manifest import Manifest, ModelFacts, Serving
from longshore_runtime.pull.mode import MODE, READONLY
from longshore_runtime.pull.sources import SOURCES
from longshore_runtime.serve.__main__ import build_parser
from longshore_runtime.serve.engines import ENGINES
from longshore_runtime.serve.health import JUDGES
from longshore_runtime.serve.launcher import STOP_MARGIN

DIGEST = "0123456789abcdef" * 4
ROOT = Path(__file__).parents[3]


def render(model: str = "team/llama3", version: str = "v1.2", **placement: Any) -> list[dict[str, Any]]:
    found = Version(model, version, DIGEST, f"s3://models/{model}/trees/{DIGEST}", "2026-11-21T10:00:00.000000Z", "ana")
    manifest = Manifest(files=(), model=ModelFacts(weight_bytes=16 * 10**9))
    return desired_objects(Composition(found, found, manifest, (), manifest.serving), Placement(**placement))


def test_the_objects_refer_to_each_other() -> None:
    runtime, container, service = render()
    model = service["spec"]["predictor"]["model"]
    assert [item["kind"] for item in (runtime, container, service)] == [
        "ClusterServingRuntime",
        "ClusterStorageContainer",
        "InferenceService",
    ]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert service["spec"]["predictor"]["storageContainerName"] == container["metadata"]["name"]
    assert model["modelFormat"]["name"] == runtime["spec"]["supportedModelFormats"][0]["name"]


def test_the_service_is_pinned_by_digest_and_labelled() -> None:
    service = render(namespace="demo")[2]
    assert service["spec"]["predictor"]["model"]["storageUri"] == f"s3://models/team/llama3/trees/{DIGEST}"
    assert service["metadata"]["namespace"] == "demo"
    assert service["metadata"]["annotations"]["longshore.dev/digest"] == f"sha256:{DIGEST}"
    labels = service["metadata"]["labels"]
    assert labels["longshore.dev/model"] == "team_llama3"
    assert labels["longshore.dev/version"] == "v1.2"
    assert labels["networking.kserve.io/visibility"] == "cluster-local"
    assert all(len(value) <= 63 for value in labels.values())


def test_the_launcher_takes_the_arguments_that_it_is_given() -> None:
    runtime, _, service = render(gpus=4)
    container = runtime["spec"]["containers"][0]
    assert container["command"] == ["python3", "-m", "longshore_runtime.serve"]
    arguments = container["args"] + service["spec"]["predictor"]["model"]["args"]  # KServe appends
    options, for_engine = build_parser().parse_known_args(arguments)
    assert (options.served_model_name, options.port, str(options.model_dir)) == ("team/llama3", PORT, "/mnt/models")
    assert for_engine == ["--tensor-parallel-size=4"]
    assert not any("{{" in argument for argument in arguments), "KServe reads args as a Go template"


def test_an_adapter_is_pulled_into_its_base_and_served_with_it() -> None:
    base, sql, chat = (
        Version(model, "1", DIGEST, f"s3://models/{model}/trees/{DIGEST}", "2026-11-21T10:00:00.000000Z", "ana")
        for model in ("llama3", "team/sql", "chat")
    )
    manifest = Manifest(files=(), model=ModelFacts(weight_bytes=16 * 10**9))
    service = desired_objects(Composition(sql, base, manifest, (sql, chat), manifest.serving), Placement())[2]
    predictor, metadata = service["spec"]["predictor"], service["metadata"]
    assert "storageUri" not in predictor["model"]
    assert [(found["uri"], found["mountPath"]) for found in predictor["storageUris"]] == [
        (base.uri, "/mnt/models"),
        (sql.uri, "/mnt/models/.longshore/adapters/team_sql"),
        (chat.uri, "/mnt/models/.longshore/adapters/chat"),
    ]
    assert (metadata["name"], metadata["labels"]["longshore.dev/model"]) == ("team-sql-1-" + metadata["name"][-8:], "team_sql")
    assert metadata["annotations"]["longshore.dev/adapters"] == f"team/sql:1 sha256:{DIGEST}, chat:1 sha256:{DIGEST}"
    options, rest = build_parser().parse_known_args(predictor["model"]["args"])
    assert (options.served_model_name, rest) == ("llama3", [])
    folder = "/mnt/models/.longshore/adapters"
    assert options.adapter == [("team/sql", f"{folder}/team_sql"), ("chat", f"{folder}/chat")]


def test_probes_ask_the_launcher_and_the_pod_is_left_the_time_to_drain() -> None:
    runtime, _, service = render()
    container = runtime["spec"]["containers"][0]
    options, _ = build_parser().parse_known_args([*container["args"], "--served-model-name=m"])
    for probe, path in (("startupProbe", "/startupz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
        assert container[probe]["httpGet"] == {"path": path, "port": options.health_port}
        assert path in JUDGES
        assert "initialDelaySeconds" not in container[probe]
    assert container["startupProbe"]["periodSeconds"] == 1
    assert container["ports"][0]["containerPort"] == options.port, "KServe sends traffic to the first port"
    spec = service["spec"]["predictor"]
    assert spec["terminationGracePeriodSeconds"] > options.notice + options.grace + STOP_MARGIN
    assert spec["enableServiceLinks"] is False
    assert options.log_format == "json"


def test_what_is_written_has_a_named_place_and_shared_memory_grows_with_the_gpus() -> None:
    runtime, _, service = render()
    container = runtime["spec"]["containers"][0]
    options, _ = build_parser().parse_known_args([*container["args"], "--served-model-name=m"])
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {"/tmp": "scratch", str(options.cache_dir): "compiled", "/dev/shm": "shm"}
    assert {volume["name"] for volume in runtime["spec"]["volumes"]} == set(mounts.values())
    assert "volumes" not in service["spec"]["predictor"]
    predictor = render(gpus=8)[2]["spec"]["predictor"]
    assert predictor["volumes"] == [{"name": "longshore-shm", "emptyDir": {"medium": "Memory", "sizeLimit": "10Gi"}}]
    assert predictor["model"]["volumeMounts"] == [{"name": "longshore-shm", "mountPath": "/dev/shm"}]


def test_the_storage_container_fits_kserves_contract() -> None:
    spec = render()[1]["spec"]
    assert spec["container"]["name"] == "storage-initializer"
    assert "args" not in spec["container"], "KServe writes the addresses there"
    pulled = [f"{scheme}://" for scheme in SOURCES if scheme != "pvc"]
    assert [found["prefix"] for found in spec["supportedUriFormats"]] == pulled, "KServe mounts pvc:// by itself"


def test_the_download_container_differs_by_its_workload_alone() -> None:
    ours, download = storage_container("longshore"), download_container("longshore")
    assert download["metadata"].pop("name") == "longshore-download"
    assert download["spec"].pop("workloadType") == "localModelDownloadJob"
    assert ours["metadata"].pop("name") == "longshore"
    assert ours["spec"].pop("workloadType") == "initContainer"
    assert [variable["name"] for variable in ours["spec"]["container"].pop("env")] == [MODE, READONLY]
    assert ours == download


def test_weights_that_arrive_later_are_asked_for_by_annotations() -> None:
    _, container, service = render()
    notes = service["metadata"]["annotations"]
    assert notes["longshore.dev/pull"] == "overlap"
    for variable in container["spec"]["container"]["env"]:
        path = variable["valueFrom"]["fieldRef"]["fieldPath"]
        assert path.removeprefix("metadata.annotations['").removesuffix("']") in notes
    assert "longshore.dev/pull" not in render(overlap=False)[2]["metadata"]["annotations"]


@pytest.mark.parametrize(("gpus", "memory", "gpu"), [(0, "34Gi", None), (1, "19Gi", "1"), (8, "27Gi", "8")])
def test_resources_follow_the_weights_and_the_gpus(gpus: int, memory: str, gpu: str | None) -> None:
    resources = render(gpus=gpus)[2]["spec"]["predictor"]["model"]["resources"]
    assert resources["limits"]["memory"] == memory
    assert resources["limits"].get("nvidia.com/gpu") == gpu


def test_containers_have_no_privileges() -> None:
    runtime, container, _ = render()
    for found in (runtime["spec"]["containers"][0], container["spec"]["container"]):
        context = found["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["runAsNonRoot"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_a_gguf_is_served_by_llamacpp_in_an_image_of_its_own() -> None:
    version = Version("m", "1", DIGEST, f"s3://models/m/trees/{DIGEST}", "2026-11-21T10:00:00.000000Z", "ana")
    manifest = Manifest(files=(), model=ModelFacts(weight_bytes=10**9, quantization="gguf"))
    scaling = Scaling(least=1, most=3, prometheus="http://prometheus:9090")
    found = Composition(version, version, manifest, (), manifest.serving)
    runtime, _, service = desired_objects(found, Placement(gpus=2, scaling=scaling))
    name = f"longshore-llamacpp-{__version__.replace('.', '-')}"
    assert runtime["metadata"]["name"] == name
    assert runtime["spec"]["containers"][0]["image"] == f"longshore/runtime-llamacpp:{__version__}"
    predictor = service["spec"]["predictor"]
    assert (predictor["model"]["runtime"], predictor["model"]["modelFormat"]["name"]) == (name, "gguf")
    assert not set(OVERLAP) & set(service["metadata"]["annotations"])  # it reads all of its file at once
    assert predictor["model"]["args"] == ["--served-model-name=m"], "how it goes onto GPUs is llama.cpp's to say"
    assert "sum(llamacpp:requests_deferred{" in str(predictor["autoScaling"])


def test_an_engine_without_a_runtime_is_refused() -> None:
    with pytest.raises(LongshoreError, match="there is no runtime with the engine 'abacus'; use one of vllm, llamacpp"):
        serving_runtime("longshore", "abacus")


def test_every_engine_has_a_runtime_and_a_metric_to_scale_by() -> None:
    assert PROFILES.keys() == ENGINES.keys() == WAITING.keys()
    dockerfile = (ROOT / "Dockerfile").read_text()
    for profile in PROFILES.values():
        assert all(f" AS {image}\n" in dockerfile for image in (profile.image, profile.cpu_image) if image)


def test_a_pod_without_gpus_gets_the_runtime_that_was_built_for_it() -> None:
    """But for its image and its name it is the same: what is told to an engine on a CPU, the launcher works out there."""
    on_gpu, on_cpu = (render(gpus=gpus) for gpus in (1, 0))
    version = __version__.replace(".", "-")
    for (runtime, _, service), name, image in (
        (on_gpu, f"longshore-vllm-{version}", "runtime"),
        (on_cpu, f"longshore-vllm-cpu-{version}", "runtime-cpu"),
    ):
        assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"].pop("name") == name
        assert runtime["spec"]["containers"][0].pop("image") == f"longshore/{image}:{__version__}"
    assert on_cpu[0] == on_gpu[0]
    assert on_cpu[2]["spec"]["predictor"]["model"]["resources"] == {
        "requests": {"cpu": "1", "memory": "34Gi"},
        "limits": {"memory": "34Gi"},
    }
    for engine in PROFILES.keys() - {"vllm"}:
        assert serving_runtime("longshore", engine, on_cpu=True) == serving_runtime("longshore", engine)


def test_prometheus_asks_where_the_engine_answers_it() -> None:
    asked = {engine: serving_runtime("longshore", engine)["spec"]["annotations"]["prometheus.io/path"] for engine in PROFILES}
    assert asked == dict.fromkeys(PROFILES, "/metrics") | {"trtllm": "/prometheus/metrics"}


def test_the_manifests_folder_holds_what_is_rendered() -> None:
    _, container, _ = render()
    rendered = {f"{engine}.yaml": serving_runtime("longshore", engine) for engine in PROFILES}
    for engine, profile in PROFILES.items():
        if profile.cpu_image:
            rendered[f"{engine}-cpu.yaml"] = serving_runtime("longshore", engine, on_cpu=True)
    for name, runtime in rendered.items():
        assert (ROOT / "manifests/runtimes" / name).read_text() == dump_yaml([runtime])
    listed = yaml.safe_load((ROOT / "manifests/runtimes/kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(rendered)
    assert (ROOT / "manifests/storage/container.yaml").read_text() == dump_yaml([container])
    assert (ROOT / "manifests/storage/download.yaml").read_text() == dump_yaml([download_container("longshore")])
    for folder in ("manifests", "manifests/runtimes", "manifests/storage"):
        listed = yaml.safe_load((ROOT / folder / "kustomization.yaml").read_text())["resources"]
        assert all((ROOT / folder / name).exists() for name in listed)


def test_the_sdk_does_not_read_our_command_line() -> None:
    """kserve parses sys.argv while it is imported: `--max` is ambiguous to its model server."""
    script = "import sys; sys.argv = ['x', '--max', '3']; import longshore.fleet.objects; print(sys.argv)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "['x', '--max', '3']\n", done.stderr


def test_one_that_sleeps_has_memory_for_its_weights_and_is_told_so() -> None:
    model = render(gpus=2, sleepable=True)[2]["spec"]["predictor"]["model"]
    assert model["resources"]["limits"]["memory"] == "36Gi", "15 GiB of weights that pass through, and as many that stay"
    options, rest = build_parser().parse_known_args(model["args"])
    assert (options.sleepable, rest) == (True, ["--tensor-parallel-size=2"])
    assert "--sleepable" not in render()[2]["spec"]["predictor"]["model"]["args"]
    with pytest.raises(LongshoreError, match="a pod without GPUs has no memory of theirs to give back; leave --sleepable out"):
        render(gpus=0, sleepable=True)


@pytest.mark.parametrize("engine", ["llamacpp", "sglang", "tgi", "trtllm"])
def test_an_engine_that_cannot_sleep_is_refused(engine: str) -> None:
    found = Version("m", "1", DIGEST, f"s3://models/m/trees/{DIGEST}", "2026-11-21T10:00:00.000000Z", "ana")
    manifest = Manifest(files=(), model=ModelFacts(), serving=Serving(engine=engine))
    with pytest.raises(LongshoreError, match=f"{engine} cannot sleep as the launcher drives it; leave --sleepable out"):
        desired_objects(Composition(found, found, manifest, (), manifest.serving), Placement(sleepable=True))
