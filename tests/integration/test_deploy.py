"""`longshore deploy`, `status` and `undeploy` against a real API server and a real KServe."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from longshore import deployment
from longshore.cluster import Cluster as Client
from longshore_runtime.errors import EngineFailed
from support.command import CommandLine
from support.documents import Example, blocks, examples
from support.models import make_adapter, make_model
from support.servers import S3Server
from testbed.cluster import Cluster, eventually
from testbed.fake_prometheus import FakePrometheus

NAME = "m-1"
STRICTLY = ("--server-side", "--dry-run=server", "--validate=strict", "--field-manager=longshore")


@pytest.fixture
def client(control_plane: Cluster, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    return Client()


@pytest.fixture
def longshore(control_plane: Cluster, namespace: str, versitygw: S3Server, tmp_path: Path) -> Iterator[CommandLine]:
    """The command line with a bucket that holds m:1, and a cluster."""
    versitygw.make_bucket(namespace)
    settings = {"LONGSHORE_REGISTRY": f"s3://{namespace}/r", "KUBECONFIG": str(control_plane.kubeconfig)}
    command = CommandLine(tmp_path, tuple((versitygw.environment | settings).items()))
    assert command("push", make_model(tmp_path / "model"), "m:1", "--alias", "prod").code == 0
    yield command
    control_plane.kubectl("-n", namespace, "delete", "inferenceservices", "--all", "--wait=false")


def is_part(wanted: Any, live: Any) -> bool:
    """Whether everything that is wanted is there; defaults may have been added."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(key in live and is_part(value, live[key]) for key, value in wanted.items())
    if isinstance(wanted, list):
        return len(wanted) == len(live) and all(map(is_part, wanted, live))
    return bool(wanted == live)


def test_a_version_comes_up_is_seen_and_goes(longshore: CommandLine, control_plane: Cluster, namespace: str) -> None:
    done = longshore("deploy", "m@prod", "-n", namespace, "--gpus", "0")
    assert done.code == 0, done.err
    assert done.out == f"m:1 is ready at http://m-1-predictor.{namespace}.svc.cluster.local/v1\n"
    assert f"InferenceService/{NAME} created" in done.err
    for item in yaml.safe_load_all(longshore("render", "m@prod", "-n", namespace, "--gpus", "0").out):
        where = ["-n", namespace] if "namespace" in item["metadata"] else []
        live = control_plane.read(*where, item["kind"], item["metadata"]["name"])
        assert is_part(item, live), item["kind"]
    again = longshore("deploy", "m@prod", "-n", namespace, "--gpus", "0", "--json")
    assert [item["change"] for item in again.json["applied"]] == ["unchanged"] * 3
    assert again.json["state"]["phase"] == "ready"
    (row,) = [line.split() for line in longshore("status", "-n", namespace).out.splitlines()[1:]]
    assert row[:4] == [namespace, "m:1", "ready", "1/1"]
    assert [state["reference"] for state in longshore("status", "m", "-A", "--json").json if state["namespace"] == namespace]
    assert longshore("status", "other", "-n", namespace, "--json").json == []
    gone = longshore("undeploy", "m@prod", "-n", namespace)
    assert (gone.code, gone.out) == (0, f"{namespace}/{NAME} is gone\n")
    assert control_plane.read("-n", namespace, "pods")["items"] == []
    assert "has no m-1; see what runs" in longshore("undeploy", "m:1", "-n", namespace).error


def test_the_cache_the_keys_and_the_way_to_pull_reach_the_pod(
    longshore: CommandLine, control_plane: Cluster, namespace: str
) -> None:
    """As KServe resolves them: the container's mounts find the service's volumes, and the model's own place stays."""
    control_plane.kubectl("-n", namespace, "create", "secret", "generic", "signers", "--from-literal=a.pub=x")
    own = ("--cache", "/srv/cache", "--cache-size", "5GiB", "--keys", "signers", "--pull", "overlap")
    done = longshore("deploy", "m@prod", "-n", namespace, "--gpus", "0", *own)
    assert done.code == 0, done.err
    (pod,) = control_plane.read("-n", namespace, "pods")["items"]
    volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
    (initializer,), (engine,) = pod["spec"]["initContainers"], pod["spec"]["containers"]
    seen = [
        {one["mountPath"]: (volumes[one["name"]], one.get("readOnly", False)) for one in container["volumeMounts"]}
        for container in (initializer, engine)
    ]
    cache = {"name": "longshore-cache", "hostPath": {"path": "/srv/cache", "type": "DirectoryOrCreate"}}
    assert seen[0]["/var/cache/longshore"] == (cache, False)
    assert seen[1]["/var/cache/longshore"] == (cache, True)
    assert seen[1]["/var/cache/longshore/leases"] == (cache, False)
    assert seen[0]["/etc/longshore/keys"][0]["secret"]["secretName"] == "signers"
    assert seen[0]["/mnt/models"][0] == seen[1]["/mnt/models"][0]
    assert seen[1]["/mnt/models"][1] is False, "the launcher may pull"
    told_by = [
        one["valueFrom"]["fieldRef"]["fieldPath"] for one in initializer["env"] if "fieldRef" in one.get("valueFrom", {})
    ]
    notes = [path.removeprefix("metadata.annotations['").removesuffix("']") for path in told_by]
    assert [pod["metadata"]["annotations"][note] for note in notes] == ["overlap", "false"]
    assert {"/tmp", "/dev/shm"} <= seen[1].keys(), "what the runtime mounts stays"
    told = {one["name"]: one["value"] for one in initializer["env"] if "value" in one}
    assert told["LONGSHORE_CACHE_SIZE"] == "5GiB"
    assert told["LONGSHORE_SIGNATURES"] == "require"
    assert initializer["securityContext"]["runAsUser"] == 0
    assert initializer["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.timeout(400)
def test_an_adapter_comes_up_with_its_base_in_one_pod(
    longshore: CommandLine, control_plane: Cluster, namespace: str, tmp_path: Path
) -> None:
    """KServe gives the initializer both addresses; what the pod's two programs are told is run here."""
    adapter = make_adapter(tmp_path / "adapter", tmp_path / "model")
    pushed = longshore("push", adapter, "team/sql:1", "--base", "m@prod", "--json")
    base, own = longshore("show", "m:1", "--json").json["uri"], pushed.json["version"]["uri"]
    options = ("-n", namespace, "--gpus", "0", "--cache", "/srv/cache")
    done = longshore("deploy", "team/sql:1", *options, "--json", timeout=120)
    assert (done.code, done.json["state"]["reference"]) == (0, "team/sql:1"), done.err
    *_, service = yaml.safe_load_all(longshore("render", "team/sql:1", *options).out)
    assert is_part(service, control_plane.read("-n", namespace, "inferenceservice", service["metadata"]["name"]))

    (pod,) = control_plane.read("-n", namespace, "pods")["items"]
    (initializer,), (engine,) = pod["spec"]["initContainers"], pod["spec"]["containers"]
    assert initializer["args"] == [base, "/mnt/models", own, "/mnt/models/.longshore/adapters/team_sql"]
    for container in (initializer, engine):
        assert {"/mnt/models", "/var/cache/longshore"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
    for container, expected in ((initializer, '"verified": "digest"'), (engine, "--lora-modules team/sql=")):
        command = [
            argument.replace("/mnt/models", str(tmp_path / "mnt")) for argument in container["command"] + container["args"]
        ]
        command[0] = sys.executable
        if container is engine:
            command.append("--print-command")
        said = subprocess.run(command, env=longshore.environ(), capture_output=True, text=True, check=True)
        assert expected in said.stdout, said.stderr

    context = control_plane.kubectl("config", "current-context").strip()
    assert "is served by" in longshore("delete", "m:1", "--context", context).error, "as the base of the adapter"


def test_a_services_mounts_take_the_place_of_its_runtimes_and_probes_reach_the_pod(
    longshore: CommandLine, control_plane: Cluster, client: Client, namespace: str
) -> None:
    *shared, service = yaml.safe_load_all(longshore("render", "m:1", "-n", namespace, "--gpus", "4").out)
    predictor = service["spec"]["predictor"]
    kept = next(blocks(Path(__file__).parents[2] / "docs/runtime.md", "yaml"))
    wanted = yaml.safe_load(kept)["spec"]["predictor"]
    predictor["volumes"] += wanted["volumes"]
    predictor["model"]["volumeMounts"] += wanted["model"]["volumeMounts"]
    deployment.apply(client, [*shared, service])
    eventually(lambda: bool(control_plane.read("-n", namespace, "deployments")["items"]), "KServe makes a Deployment")
    (made,) = control_plane.read("-n", namespace, "deployments")["items"]
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert len(mounts) == len(container["volumeMounts"])
    assert mounts["/dev/shm"] == "longshore-shm"
    assert mounts["/var/cache/engine"] == "kept"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["kept"]["persistentVolumeClaim"]["claimName"] == "compiled"
    assert volumes["longshore-shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "6Gi"}
    rendered = shared[0]["spec"]["containers"][0]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert is_part(rendered[probe], container[probe])
    assert (pod["terminationGracePeriodSeconds"], pod["enableServiceLinks"]) == (90, False)
    ports = control_plane.read("-n", namespace, "service", f"{NAME}-predictor")["spec"]["ports"]
    assert [port["targetPort"] for port in ports] in ([8080], ["http1"])


def test_adapters_appear_and_compiled_code_stays_on_claims(
    longshore: CommandLine, control_plane: Cluster, namespace: str
) -> None:
    """The API server holds the objects against KServe's schemas, strictly; KServe hands the mounts on."""
    claims = ("--adapters-dir", "pvc://team-adapters", "--compiled", "pvc://team-compiled")
    options = ("-n", namespace, "--gpus", "0", *claims)
    rendered = longshore("render", "m:1", *options).out
    control_plane.kubectl("apply", *STRICTLY, "-f", "-", input=rendered)
    done = longshore("deploy", "m:1", *options, "--no-wait")
    assert done.code == 0, done.err
    eventually(lambda: bool(control_plane.read("-n", namespace, "deployments")["items"]), "KServe makes a Deployment")
    (made,) = control_plane.read("-n", namespace, "deployments")["items"]
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert container["args"][-2:] == ["--adapters-dir=/mnt/adapters", "--keep-compiled"]
    kept = mounts["/var/cache/engine"]
    assert (volumes[kept["name"]]["persistentVolumeClaim"], kept.get("readOnly")) == ({"claimName": "team-compiled"}, None)
    assert len(mounts) == len(container["volumeMounts"]), "its mount takes the place of the runtime's"
    found = mounts["/mnt/adapters"]
    assert (volumes[found["name"]]["persistentVolumeClaim"], found["readOnly"]) == ({"claimName": "team-adapters"}, True)
    assert {"/tmp", "/dev/shm"} <= mounts.keys(), "what the runtime mounts stays"
    (state,) = longshore("status", "m", "-n", namespace, "--json").json
    assert state["adapters"] == []


def test_a_version_that_is_served_is_not_deleted(longshore: CommandLine, control_plane: Cluster, namespace: str) -> None:
    model = make_model(longshore.home / "second", seed=2)
    assert longshore("push", model, "m:2").code == 0
    assert longshore("deploy", "m:2", "-n", namespace, "--gpus", "0", "--no-wait").code == 0
    context = control_plane.kubectl("config", "current-context").strip()
    refused = longshore("delete", "m:2", "--context", context)
    assert refused.code == 1
    assert f"m:2 is served by {namespace}/m-2 in {context}; take it down first: longshore undeploy m:2" in refused.error
    assert longshore("undeploy", "m:2", "-n", namespace).code == 0
    assert longshore("delete", "m:2", "--context", context).code == 0
    assert [event["verb"] for event in longshore("log", "m", "--json").json][:3] == ["delete", "undeploy", "deploy"]


def test_a_fixed_number_of_pods_has_no_autoscaler(longshore: CommandLine, control_plane: Cluster, namespace: str) -> None:
    assert longshore("deploy", "m:1", "-n", namespace, "--gpus", "0", "--min", "2").code == 0
    eventually(
        lambda: control_plane.read("-n", namespace, f"deployment/{NAME}-predictor")["spec"]["replicas"] == 2,
        "two pods are wanted",
    )
    assert control_plane.read("-n", namespace, "horizontalpodautoscalers")["items"] == []


def test_cpu_is_followed_by_kserves_autoscaler(longshore: CommandLine, control_plane: Cluster, namespace: str) -> None:
    done = longshore("deploy", "m:1", "-n", namespace, "--gpus", "0", "--max", "3", "--scale-on", "cpu", "--scale-target", "70")
    assert done.code == 0, done.err
    (found,) = control_plane.read("-n", namespace, "horizontalpodautoscalers")["items"]
    assert (found["spec"]["minReplicas"], found["spec"]["maxReplicas"]) == (1, 3)
    (metric,) = found["spec"]["metrics"]
    assert (metric["resource"]["name"], metric["resource"]["target"]["averageUtilization"]) == ("cpu", 70)


@pytest.mark.timeout(400)
def test_the_queue_drives_the_number_of_pods(
    longshore: CommandLine, control_plane: Cluster, namespace: str, prometheus: FakePrometheus
) -> None:
    """0 → 1 → 3 → 1 by what Prometheus says; KServe leaves KEDA's polling at 30 s."""
    prometheus.value = 0
    options = ["--min", "0", "--max", "3", "--prometheus", prometheus.url, "--scale-query", "gateway_requests_waiting"]
    assert longshore("deploy", "m:1", "-n", namespace, "--gpus", "0", "--no-wait", *options).code == 0

    def wanted() -> int:
        return int(control_plane.read("-n", namespace, f"deployment/{NAME}-predictor")["spec"]["replicas"])

    def stabilize_at_once() -> None:
        """The five minutes that a lower load must last are ours; the test does not wait for them."""
        patch = {"spec": {"predictor": {"autoScaling": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}}}}
        control_plane.kubectl("-n", namespace, "patch", "isvc", NAME, "--type=merge", f"--patch={json.dumps(patch)}")

    eventually(lambda: bool(control_plane.read("-n", namespace, "scaledobjects")["items"]), "KServe makes a ScaledObject")
    (scaled,) = control_plane.read("-n", namespace, "scaledobjects")["items"]
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["query"] == "gateway_requests_waiting"
    assert trigger["metadata"]["threshold"] == "4"
    assert trigger.get("metricType", "AverageValue") == "AverageValue"
    stabilize_at_once()
    prometheus.value = 1
    eventually(lambda: wanted() == 1, "one pod", timeout=120)
    prometheus.value = 12
    eventually(lambda: wanted() == 3, "three pods", timeout=120)
    prometheus.value = 2
    eventually(lambda: wanted() == 1, "one pod again", timeout=120)


def test_the_initializers_own_words_end_the_wait(
    longshore: CommandLine, control_plane: Cluster, client: Client, namespace: str
) -> None:
    words = json.dumps({"verdict": "failed", "error": "w.safetensors is not what was pushed", "hint": "push again"})
    *shared, service = yaml.safe_load_all(longshore("render", "m:1", "-n", namespace, "--gpus", "0").out)
    service["metadata"]["annotations"]["testbed.longshore.dev/initializer-fails"] = words
    deployment.apply(client, [*shared, service])
    with pytest.raises(EngineFailed, match=r"m-1 does not start: w\.safetensors is not what was pushed; push again"):
        deployment.wait_ready(client, namespace, NAME, 60, lambda _: None)
    state = longshore("status", "-n", namespace)
    assert "failed" in state.out
    assert "m:1: w.safetensors is not what was pushed; push again" in state.out


def test_a_field_that_somebody_else_set_is_taken_over_only_by_force(
    longshore: CommandLine, control_plane: Cluster, namespace: str
) -> None:
    assert longshore("deploy", "m:1", "-n", namespace, "--gpus", "0").code == 0
    patch = '{"spec":{"predictor":{"minReplicas":2,"maxReplicas":2}}}'
    control_plane.kubectl("-n", namespace, "patch", "isvc", NAME, "--type=merge", f"--patch={patch}", "--field-manager=ana")
    refused = longshore("deploy", "m:1", "-n", namespace, "--gpus", "0")
    assert refused.code == 1
    assert '"ana"' in refused.error
    assert "--force" in refused.error
    assert longshore("deploy", "m:1", "-n", namespace, "--gpus", "0", "--force").code == 0
    assert control_plane.read("-n", namespace, f"isvc/{NAME}")["spec"]["predictor"]["minReplicas"] == 1


def test_what_others_made_is_not_taken_away(longshore: CommandLine, control_plane: Cluster, namespace: str) -> None:
    *_, service = yaml.safe_load_all(longshore("render", "m:1", "-n", namespace, "--gpus", "0").out)
    del service["metadata"]["labels"]["app.kubernetes.io/managed-by"]
    control_plane.kubectl("apply", "--filename=-", input=yaml.safe_dump(service))
    assert "was not deployed by Longshore; kubectl delete" in longshore("undeploy", "m:1", "-n", namespace).error


def test_the_documents_commands_print_what_it_shows(
    longshore: CommandLine, control_plane: Cluster, namespace: str, tmp_path: Path
) -> None:
    found = list(examples(Path(__file__).parents[2] / "docs" / "deploy.md"))
    assert len(found) == 4
    for example in found:
        in_namespace = [text.replace("demo", namespace) for text in (example.command, *example.shown)]
        Example(in_namespace[0], tuple(in_namespace[1:])).check(longshore, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("deploy", "m:1", "-n", "nowhere"), 'namespaces "nowhere" not found; create the namespace'),
        (("deploy", "m:1", "--context", "absent"), "no cluster is configured: "),
        (("deploy", "m:1", "--max", "3"), "needs a Prometheus that scrapes the pods"),
        (("deploy", "m:9"), "m has no version 9"),
        (("logs", "m:1", "-n", "nowhere"), "nowhere/m-1 has no pod"),
        (("deploy", "m:1", "--registry", "file:///tmp"), "m has no version 1"),
    ],
)
def test_a_refusal_is_one_line(longshore: CommandLine, arguments: tuple[str, ...], message: str) -> None:
    done = longshore(*arguments)
    assert done.code == 1
    assert message in done.error


def test_a_cluster_that_does_not_answer_is_named(longshore: CommandLine, control_plane: Cluster, tmp_path: Path) -> None:
    config = json.loads(control_plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "config").write_text(json.dumps(config))
    lost = CommandLine(longshore.home, (*longshore.environment, ("KUBECONFIG", str(tmp_path / "config"))))
    done = lost("status")
    assert done.code == 1
    assert "the cluster does not answer" in done.error


def test_a_folder_on_this_machine_is_nothing_to_deploy(longshore: CommandLine, tmp_path: Path) -> None:
    registry = (tmp_path / "local").as_uri()
    assert longshore("push", tmp_path / "model", "m:1", "--registry", registry).code == 0
    done = longshore("deploy", "m:1", "--registry", registry)
    assert done.code == 1
    assert "a pod cannot read this machine's folders; push the version to a registry in a bucket" in done.error
