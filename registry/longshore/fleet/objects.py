"""The objects that serve a version on KServe: the serving runtime, the storage container, the InferenceService.

Built from the typed models of the kserve SDK, so that a field KServe does not know cannot slip in.
`render` prints them, the manifests folder holds the first two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from longshore._version import __version__
from longshore.adapters import Composition
from longshore.fleet.autoscaling import Scaling, autoscaler_annotations, check_scaling, predictor_fields
from longshore.fleet.imports import without_arguments
from longshore.fleet.names import label_value, service_name
from longshore.fleet.state import HEALTH_PORT
from longshore.fleet.yaml import Object
from longshore.version import Version
from longshore_runtime.errors import LongshoreError
from longshore_runtime.pull.ahead import WAITING
from longshore_runtime.pull.sources import SOURCES
from longshore_runtime.serve.engines import choose_engine, open_engine
from longshore_runtime.serve.launcher import STOP_MARGIN

try:
    with without_arguments():
        from kserve import models as kserve
    from kubernetes import client as k8s
except ImportError as error:
    raise LongshoreError(
        "the packages kserve and kubernetes are not installed",
        "in a checkout run: make setup; elsewhere install the extra deploy",
    ) from error

from longshore.fleet.attachments import (  # after kubernetes, whose absence is explained above
    COMPILED_AT,
    Attachments,
    check_attachments,
    engine_mounts,
    initializer_environment,
    initializer_mounts,
    launcher_arguments,
    pod_volumes,
)

NOTHING = Attachments()
STORAGE_CONTAINER = "longshore"


@dataclass(frozen=True)
class Profile:
    """What differs from engine to engine: the image that has it, and how KServe calls what it serves.

    `cpu_image` is the one for pods without GPUs, where that is another. `metrics` is where Prometheus asks.
    """

    image: str
    model_format: str
    cpu_image: str | None = None
    metrics: str = "/metrics"


DEFAULT_ENGINE = "vllm"
PROFILES = {
    DEFAULT_ENGINE: Profile("runtime", "huggingface", "runtime-cpu"),
    "llamacpp": Profile("runtime-llamacpp", "gguf"),
    "sglang": Profile("runtime-sglang", "huggingface"),
    "tgi": Profile("runtime-tgi", "huggingface"),
    "trtllm": Profile("runtime-trtllm", "huggingface", metrics="/prometheus/metrics"),
}
"""By the engine's name. vLLM's images compute on what they were built for: GPUs, or a CPU."""

MODEL_FOLDER = "/mnt/models"
"""Where KServe mounts what the initializer has pulled."""

PORT = 8080
GRACE = 60
"""Seconds for the requests that run when a pod is told to stop."""

NOTICE = 5
"""Seconds that routers get to notice that a pod is going, while it still answers."""

STOP_SECONDS = NOTICE + GRACE + STOP_MARGIN + 10
"""Until a pod that was told to stop is killed: longer than the launcher takes at the most."""

START_LIMIT = 6 * 3600
"""Seconds after which a start is given up from outside. The launcher knows how much there is to load, and gives up sooner."""

GIB = 1024**3

SHARED, SHARED_GIB = "/dev/shm", 2

OVERLAP = {"longshore.dev/pull": "overlap", "storage.kserve.io/readonly": "false"}
"""Annotations by which weights are pulled in the main container, which then may write to the model's folder."""

PULL_ANNOTATIONS = dict(zip(("LONGSHORE_PULL", "LONGSHORE_READONLY"), OVERLAP, strict=True))
"""By which variables the initializer is told of them; KServe hands it nothing else of an InferenceService."""


@dataclass(frozen=True)
class Placement:
    """Where and how a version is served; `gpus` per replica (0: the CPU), `images` the registry and path of ours.

    `service_account` names the account whose secrets the pull uses. `arguments` are the engine's options for dividing
    the model among the GPUs, by default each layer over all of them. With `overlap` the weights arrive while the engine
    starts, should it be one that waits for them. A `sleepable` one gives its GPUs' memory back when it is told to.
    """

    namespace: str = "default"
    gpus: int = 1
    images: str = "longshore"
    service_account: str | None = None
    scaling: Scaling = field(default_factory=Scaling)
    arguments: tuple[str, ...] | None = None
    attachments: Attachments = NOTHING
    overlap: bool = True
    sleepable: bool = False


def desired_objects(served: Composition, placement: Placement) -> list[Object]:
    """Everything that serves a version, with its base or its adapters, in the order in which it is applied."""
    return [
        serving_runtime(placement.images, choose_engine(served.serving, served.manifest.model), on_cpu=not placement.gpus),
        storage_container(placement.images, attachments=placement.attachments),
        inference_service(served, placement),
    ]


def runtime_name(engine: str, *, on_cpu: bool = False) -> str:
    """The name of an engine's ClusterServingRuntime, with our version: KServe restarts every service whose runtime changes.

    The one for pods without GPUs has a name of its own where it has an image of its own.
    """
    kind = "-cpu" if on_cpu and _profile(engine).cpu_image else ""
    return f"longshore-{engine}{kind}-{__version__.replace('.', '-')}"


def serving_runtime(images: str, engine: str = DEFAULT_ENGINE, *, on_cpu: bool = False) -> Object:
    """The ClusterServingRuntime: our launcher with an engine, any UID, read-only root, no privileges.

    What the engine is told on a CPU the launcher works out in the pod.
    """
    profile = _profile(engine)
    image = (profile.cpu_image if on_cpu else None) or profile.image
    container = k8s.V1Container(
        name="kserve-container",
        image=f"{images}/{image}:{__version__}",
        command=["python3", "-m", "longshore_runtime.serve"],
        args=_launcher_options(),
        ports=[k8s.V1ContainerPort(name="http1", container_port=PORT, protocol="TCP")],
        env=[k8s.V1EnvVar(name=name, value=value) for name, value in _writable_homes().items()],
        # Each second that a ready engine is not noticed is a second of the cold start.
        startup_probe=_probe("/startupz", every=1, failures=START_LIMIT),
        readiness_probe=_probe("/readyz", every=2, failures=2),
        liveness_probe=_probe("/livez", every=10, failures=3),
        security_context=_no_privileges(),
        volume_mounts=[
            k8s.V1VolumeMount(name="scratch", mount_path="/tmp"),
            k8s.V1VolumeMount(name="compiled", mount_path=COMPILED_AT),
            k8s.V1VolumeMount(name="shm", mount_path=SHARED),
        ],
    )
    spec = kserve.V1alpha1ServingRuntimeSpec(
        supported_model_formats=[
            kserve.V1alpha1SupportedModelFormat(name=profile.model_format, version="1", auto_select=False)
        ],
        protocol_versions=["v1", "v2"],
        annotations={
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(PORT),
            "prometheus.io/path": profile.metrics,
        },
        containers=[container],
        volumes=[
            k8s.V1Volume(name="scratch", empty_dir=k8s.V1EmptyDirVolumeSource()),
            k8s.V1Volume(name="compiled", empty_dir=k8s.V1EmptyDirVolumeSource()),
            k8s.V1Volume(name="shm", empty_dir=k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit=f"{SHARED_GIB}Gi")),
        ],
    )
    return _as_object(
        kserve.V1alpha1ClusterServingRuntime(
            api_version="serving.kserve.io/v1alpha1",
            kind="ClusterServingRuntime",
            metadata=k8s.V1ObjectMeta(name=runtime_name(engine, on_cpu=on_cpu), labels=_own_labels()),
            spec=spec,
        )
    )


def storage_container(
    images: str, name: str = STORAGE_CONTAINER, workload: str = "initContainer", attachments: Attachments = NOTHING
) -> Object:
    """The ClusterStorageContainer: our initializer. It has no args, since KServe writes the addresses there."""
    pulled = [scheme for scheme in SOURCES if scheme != "pvc"]  # which KServe mounts by itself
    container = k8s.V1Container(
        name="storage-initializer",
        image=f"{images}/storage-initializer:{__version__}",
        command=["python3", "-m", "longshore_runtime.pull"],
        resources=k8s.V1ResourceRequirements(requests={"cpu": "100m", "memory": "256Mi"}, limits={"cpu": "2", "memory": "1Gi"}),
        security_context=_no_privileges(as_root=attachments.as_root),
        env=_pod_notes(workload) + (initializer_environment(attachments) or []) or None,
        volume_mounts=initializer_mounts(attachments),
        termination_message_policy="FallbackToLogsOnError",
    )
    return _as_object(
        kserve.V1alpha1ClusterStorageContainer(
            api_version="serving.kserve.io/v1alpha1",
            kind="ClusterStorageContainer",
            metadata=k8s.V1ObjectMeta(name=name + attachments.suffix, labels=_own_labels()),
            spec=kserve.V1alpha1StorageContainerSpec(
                container=container,
                supported_uri_formats=[kserve.V1alpha1SupportedUriFormat(prefix=f"{scheme}://") for scheme in pulled],
                supports_multi_model_download=True,
                workload_type=workload,
            ),
        )
    )


def download_container(images: str) -> Object:
    """The same for the jobs that fill the cache of a node, of KServe's LocalModelCache."""
    return storage_container(images, name=f"{STORAGE_CONTAINER}-download", workload="localModelDownloadJob")


def inference_service(served: Composition, placement: Placement) -> Object:
    """The InferenceService of one version. Its storageUri is the digest's path, so the address itself pins the bytes.

    With adapters or a draft there is an address for each, below the base's: KServe mounts their common parent, and hands all
    to one initializer.
    """
    check_scaling(placement.scaling)
    check_attachments(placement.attachments)
    version = served.version
    places = [f"{MODEL_FOLDER}/{part.place}".rstrip("/") for part in served.parts]
    folders = dict(zip(served.versions, places, strict=True))
    name = service_name(version.model, version.version, placement.namespace)
    engine = choose_engine(served.serving, served.manifest.model)
    if placement.attachments.adapters and open_engine(engine).adapter_changes is None:
        raise LongshoreError(f"{engine} takes no adapters while it runs", "leave --adapters-dir out")
    _check_sleep(placement, engine)
    volumes, mounts = _shared_memory(placement.gpus)
    predictor = kserve.V1beta1PredictorSpec(
        **predictor_fields(placement.scaling, name, placement.namespace, engine),
        service_account_name=placement.service_account,
        storage_container_name=STORAGE_CONTAINER + placement.attachments.suffix,
        storage_uris=_storage_uris(folders) if len(folders) > 1 else None,
        volumes=[*(pod_volumes(placement.attachments) or []), *volumes] or None,
        enable_service_links=False,
        automount_service_account_token=False,
        termination_grace_period_seconds=STOP_SECONDS,
        model=kserve.V1beta1ModelSpec(
            model_format=kserve.V1beta1ModelFormat(name=_profile(engine).model_format),
            runtime=runtime_name(engine, on_cpu=not placement.gpus),
            storage_uri=None if len(folders) > 1 else version.uri,
            args=_arguments(served, placement, engine, folders),
            volume_mounts=[*(engine_mounts(placement.attachments) or []), *mounts] or None,
            resources=_resources(
                served.manifest.model.weight_bytes + served.draft_bytes, placement.gpus, sleepable=placement.sleepable
            ),
        ),
    )
    return _as_object(
        kserve.V1beta1InferenceService(
            api_version="serving.kserve.io/v1beta1",
            kind="InferenceService",
            metadata=k8s.V1ObjectMeta(
                name=name, namespace=placement.namespace, labels=_labels(version), annotations=_annotations(served, placement)
            ),
            spec=kserve.V1beta1InferenceServiceSpec(predictor=predictor),
        )
    )


def _arguments(served: Composition, placement: Placement, engine: str, folders: Mapping[Version, str]) -> list[str]:
    """What the launcher is told of this version; how it goes onto GPUs only where that is the engine's to be told."""
    args = [f"--served-model-name={served.base.model}"]
    args += [f"--draft={folders[served.draft]}"] if served.draft else []
    args += [f"--adapter={part.model}={folders[part]}" for part in served.adapters]
    args += launcher_arguments(placement.attachments)
    args += ["--sleepable"] if placement.sleepable else []
    if engine == DEFAULT_ENGINE and placement.arguments is not None:
        args += placement.arguments
    elif engine == DEFAULT_ENGINE and placement.gpus > 1:
        args.append(f"--tensor-parallel-size={placement.gpus}")
    return args


def _profile(engine: str) -> Profile:
    if engine not in PROFILES:
        raise LongshoreError(f"there is no runtime with the engine {engine!r}", f"use one of {', '.join(PROFILES)}")
    return PROFILES[engine]


def _labels(version: Version) -> dict[str, str]:
    return _own_labels() | {
        "longshore.dev/model": label_value(version.model),
        "longshore.dev/version": version.version,
        "longshore.dev/digest": version.digest[:32],
        # One route per deployment is ours to make; KServe makes none for a cluster-local service.
        "networking.kserve.io/visibility": "cluster-local",
    }


def _annotations(served: Composition, placement: Placement) -> dict[str, str]:
    version = served.version
    return (
        ({"longshore.dev/adapters": _describe(served.adapters)} if served.adapters else {})
        | ({"longshore.dev/draft": _describe([served.draft])} if served.draft else {})
        | ({"longshore.dev/base": _describe([served.base])} if version != served.base else {})
        | {
            "longshore.dev/reference": version.reference,
            "longshore.dev/digest": f"sha256:{version.digest}",
            "serving.kserve.io/deploymentMode": "Standard",
        }
        | autoscaler_annotations(placement.scaling)
        | (OVERLAP if placement.overlap and choose_engine(served.serving, served.manifest.model) in WAITING else {})
    )


def _storage_uris(folders: Mapping[Version, str]) -> list[Any]:
    return [kserve.V1beta1StorageUri(uri=part.uri, mount_path=folder) for part, folder in folders.items()]


def _describe(versions: Sequence[Version]) -> str:
    return ", ".join(f"{version.reference} sha256:{version.digest}" for version in versions)


def _check_sleep(placement: Placement, engine: str) -> None:
    """Raise LongshoreError for what cannot sleep."""
    if not placement.sleepable:
        return
    if not placement.gpus:
        raise LongshoreError("a pod without GPUs has no memory of theirs to give back", "leave --sleepable out")
    if open_engine(engine).sleep_mode is None:
        raise LongshoreError(f"{engine} cannot sleep as the launcher drives it", "leave --sleepable out")


def _resources(weights: int, gpus: int, *, sleepable: bool = False) -> Any:
    """Requests that the scheduler needs: GPUs where asked for, memory for the weights as they pass through the host.

    Those of an engine that sleeps stay there meanwhile, and cannot be dropped.
    """
    shared = _shared_gib(gpus) - SHARED_GIB  # what lies in shared memory counts as the pod's, and 4 GiB have room for the least
    memory = f"{4 + shared + -(-weights * ((1 if gpus else 2) + sleepable) // GIB)}Gi"
    requests = {"cpu": "1" if not gpus else str(2 * gpus), "memory": memory}
    limits = {"memory": memory}
    if gpus:
        requests["nvidia.com/gpu"] = limits["nvidia.com/gpu"] = str(gpus)
    return k8s.V1ResourceRequirements(requests=requests, limits=limits)


def _pod_notes(workload: str) -> list[Any]:
    """Variables that have what annotations of the pod say, and are empty where it has none."""
    if workload != "initContainer":
        return []
    paths = {variable: f"metadata.annotations['{annotation}']" for variable, annotation in PULL_ANNOTATIONS.items()}
    sources = {name: k8s.V1ObjectFieldSelector(field_path=path) for name, path in paths.items()}
    return [k8s.V1EnvVar(name=name, value_from=k8s.V1EnvVarSource(field_ref=found)) for name, found in sources.items()]


def _shared_gib(gpus: int) -> int:
    """GiB of /dev/shm: the engine's processes, one for each GPU, talk to each other there, and so does NCCL."""
    return SHARED_GIB if gpus <= 1 else SHARED_GIB + gpus


def _shared_memory(gpus: int) -> tuple[list[Any], list[Any]]:
    """A volume and its mount in place of the runtime's, where that is too small."""
    if _shared_gib(gpus) == SHARED_GIB:
        return [], []
    medium = k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit=f"{_shared_gib(gpus)}Gi")
    name = "longshore-shm"
    return [k8s.V1Volume(name=name, empty_dir=medium)], [k8s.V1VolumeMount(name=name, mount_path=SHARED)]


def _launcher_options() -> list[str]:
    where = [f"--model-dir={MODEL_FOLDER}", "--host=0.0.0.0", f"--port={PORT}", f"--health-port={HEALTH_PORT}"]
    return [*where, f"--grace={GRACE}", f"--notice={NOTICE}", f"--cache-dir={COMPILED_AT}", "--log-format=json"]


def _probe(path: str, every: int, failures: int) -> Any:
    return k8s.V1Probe(
        http_get=k8s.V1HTTPGetAction(path=path, port=HEALTH_PORT),
        period_seconds=every,
        failure_threshold=failures,
        timeout_seconds=5,
    )


def _no_privileges(*, as_root: bool = False) -> Any:
    return k8s.V1SecurityContext(
        allow_privilege_escalation=False,
        capabilities=k8s.V1Capabilities(drop=["ALL"]),
        read_only_root_filesystem=True,
        run_as_non_root=not as_root,
        run_as_user=0 if as_root else None,
        seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
    )


def _writable_homes() -> dict[str, str]:
    """Where an arbitrary UID without a home on a read-only root writes; the launcher says where to keep what is compiled."""
    return {"HOME": "/tmp", "USER": "longshore", "XDG_CACHE_HOME": "/tmp/cache"}


def _own_labels() -> dict[str, str]:
    return {"app.kubernetes.io/managed-by": "longshore"}


def _as_object(typed: Any) -> Object:
    plain: Object = _plain(typed)
    return plain


def _plain(typed: Any) -> Any:
    """A typed model as the API server takes it: fields by their JSON names, what is not set left out.

    The two SDKs disagree on how a model turns itself into a dictionary; the map of names both have.
    """
    if hasattr(typed, "attribute_map"):
        values = {key: getattr(typed, name) for name, key in typed.attribute_map.items()}
        return {key: _plain(value) for key, value in values.items() if value not in (None, "")}
    if isinstance(typed, list):
        return [_plain(item) for item in typed]
    return typed
