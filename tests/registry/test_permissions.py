"""The policies that are printed, on a server that enforces them: each role can do what it is for, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from conftest import use_server
from longshore import Registry
from longshore.permissions import ROLES, make_policy
from longshore.signing import Signer, sign
from longshore_runtime.errors import LongshoreError, StoreFailed
from support.keys import make_pair
from support.models import make_model
from support.servers import S3Server

ROOT = "s3://policies/team"


@pytest.fixture
def minio_bucket(minio: S3Server, monkeypatch: pytest.MonkeyPatch, model: Path) -> S3Server:
    """A registry that holds m:1, to which prod points, and what lies beside it."""
    use_server(minio, monkeypatch)
    client = minio.client()
    if "policies" not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        minio.make_bucket("policies")
        client.put_object(Bucket="policies", Key="elsewhere", Body=b"secret")
        Registry(ROOT).push(model, "m:1", alias="prod")
    return minio


def become(role: str, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The registry, seen with temporary credentials that have the role's policy and no other."""
    policy = json.dumps(make_policy(role, ROOT))
    name = f"arn:aws:iam::123456789012:role/{role}"
    granted = server.client("sts").assume_role(RoleArn=name, RoleSessionName=role, Policy=policy)["Credentials"]
    for variable, key in {
        "AWS_ACCESS_KEY_ID": "AccessKeyId",
        "AWS_SECRET_ACCESS_KEY": "SecretAccessKey",
        "AWS_SESSION_TOKEN": "SessionToken",
    }.items():
        monkeypatch.setenv(variable, granted[key])
    return Registry(ROOT, identity=role)


def refused(registry: Registry, *actions: object) -> None:
    for action in actions:
        with pytest.raises(StoreFailed, match=r"the store denies|does not delete"):
            action()  # type: ignore[operator]


def test_a_reader_reads(minio_bucket: S3Server, monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> None:
    registry = become("reader", minio_bucket, monkeypatch)
    assert registry.resolve("m@prod").version == "1"
    assert list(registry.models()) == ["m"]
    assert registry.pull("m@prod", tmp_path / "t").verified == "digest"
    refused(
        registry, lambda: registry.push(model, "m:2"), lambda: registry.promote("m", "new", "1"), lambda: registry.delete("m:1")
    )
    refused(registry, lambda: Registry("s3://policies")._store.read("elsewhere"))


def test_a_pusher_commits_versions(minio_bucket: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registry = become("pusher", minio_bucket, monkeypatch)
    large = make_model(tmp_path / "large", seed=7, shards=1, elements=20 * 1024 * 1024)
    version = registry.push(large, "m:pushed").version
    assert registry.verify("m:pushed") == []
    assert next(registry.log("m")).verb == "push"
    assert list(registry._store.list_tree("m/guards/")) == []
    refused(
        registry,
        lambda: registry.promote("m", "prod", "pushed"),
        lambda: registry.delete("m:pushed"),
        lambda: registry._store.delete([f"m/trees/{version.digest}/config.json"]),
        lambda: registry._store.delete(["m/versions/1.json"]),
        lambda: Registry("s3://policies")._store.create("elsewhere2", b"{}"),
    )


def test_a_deployer_moves_aliases(minio_bucket: S3Server, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    registry = become("deployer", minio_bucket, monkeypatch)
    assert registry.promote("m", "deployed", "1").by == "deployer"
    registry.note(registry.resolve("m:1"), "deploy", "demo/m-1")
    assert [event.verb for event in registry.log("m")][:2] == ["deploy", "alias"]
    refused(registry, lambda: registry.push(model, "m:new"), lambda: registry._store.create("m/deletions/1/000001.json", b"{}"))
    refused(registry, lambda: registry._store.delete(["m/aliases/prod/999999999999.json"]))


def test_a_keeper_deletes_and_collects(minio_bucket: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Registry(ROOT).push(make_model(tmp_path / "second", seed=8), "m:old")
    registry = become("keeper", minio_bucket, monkeypatch)
    registry.delete("m:old")
    collector, found = registry.find_garbage(grace=0)
    assert [garbage.kind for garbage in found if registry.collect(collector, garbage)] == ["tree"]
    refused(
        registry,
        lambda: registry.promote("m", "prod", "1") and registry.promote("m", "kept", "1"),
        lambda: registry.push(tmp_path / "second", "m:again"),
        lambda: registry._store.delete(["m/versions/1.json"]),
    )
    assert registry.verify("m@prod") == []


def collect(registry: Registry, model: str) -> bool:
    collector, found = registry.find_garbage(model, grace=0)
    return all(registry.collect(collector, garbage) for garbage in found if garbage.kind == "tree")


READS: dict[str, Callable[[Registry, str, Path], object]] = {
    "resolve": lambda registry, m, _: registry.resolve(f"{m}@prod"),
    "list": lambda registry, m, _: (registry.versions(m), registry.aliases(m), registry.deleted(m)),
    "show": lambda registry, m, _: registry.manifest(registry.resolve(f"{m}:1")),
    "history": lambda registry, m, _: list(registry.history(m, "prod")),
    "log": lambda registry, m, _: list(registry.log(m)),
    "signatures": lambda registry, m, _: list(registry.signatures(registry.resolve(f"{m}:1"))),
    "account": lambda registry, m, _: registry.account(registry.resolve(f"{m}:1")),
    "verify": lambda registry, m, _: registry.verify(f"{m}:1"),
    "pull": lambda registry, m, work: registry.pull(f"{m}:1", work / registry._identity),
}
PUSHES: dict[str, Callable[[Registry, str, Path], object]] = {
    "push": lambda registry, m, work: registry.push(work / "new", f"{m}:new"),
    "push next": lambda registry, m, work: registry.push(work / "next", m),
    "import": lambda registry, m, work: registry.push(f"{registry.uri}/plain", f"{m}:imported"),
    "copy": lambda registry, m, work: Registry((work / "other").as_uri()).copy(f"{m}:9", registry),
    "sign": lambda registry, m, work: sign(registry, f"{m}:1", Signer(work / "keys/ours.pem")),
}
DEPLOYS: dict[str, Callable[[Registry, str, Path], object]] = {
    "alias": lambda registry, m, _: registry.promote(m, "canary", "1"),
    "rollback": lambda registry, m, _: registry.rollback(m, "prod"),
    "protect": lambda registry, m, _: registry.protect(m, "prod"),
}
KEEPS: dict[str, Callable[[Registry, str, Path], object]] = {
    "delete": lambda registry, m, _: registry.delete(f"{m}:3"),
    "undelete": lambda registry, m, _: registry.undelete(f"{m}:4"),
    "gc": lambda registry, m, _: collect(registry, m),
}
MAY = {"reader": READS, "pusher": READS | PUSHES, "deployer": READS | DEPLOYS, "keeper": READS | KEEPS}


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_what_it_is_for_and_nothing_else(
    role: str, minio_bucket: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    m, master = f"of-{role}", Registry(ROOT)
    for seed, label in enumerate("12345"):
        master.push(make_model(tmp_path / label, seed=seed, shards=1, elements=64), f"{m}:{label}")
    for label in "12":
        master.promote(m, "prod", label)
    for label in "45":
        master.delete(f"{m}:{label}")
    for seed, name in enumerate(("new", "next", "plain", "nine"), start=10):
        make_model(tmp_path / name, seed=seed, shards=1, elements=64)
    for path in (tmp_path / "plain").iterdir():
        minio_bucket.client().upload_file(str(path), "policies", f"team/plain/{path.name}")
    Registry((tmp_path / "other").as_uri()).push(tmp_path / "nine", f"{m}:9")
    make_pair(tmp_path / "keys", "ours")
    registry = become(role, minio_bucket, monkeypatch)
    for name, act in (READS | PUSHES | DEPLOYS | KEEPS).items():
        if name in MAY[role]:
            act(registry, m, tmp_path)
        else:
            refused(registry, partial(act, registry, m, tmp_path))
    assert registry.verify(f"{m}@prod") == []


def test_a_folder_and_an_unknown_role_have_no_policy() -> None:
    with pytest.raises(LongshoreError, match="has no policies: it is a folder; name a registry in a bucket"):
        make_policy("reader", "file:///r")
    with pytest.raises(LongshoreError, match="use one of reader, pusher, deployer, keeper"):
        make_policy("god", ROOT)
    assert all(make_policy(role, "s3://whole-bucket")["Statement"] for role in ROLES)
