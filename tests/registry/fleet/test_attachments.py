"""What pods get beside their model: volumes that belong together, with no more rights than they take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from longshore.adapters import Composition
from longshore.fleet.attachments import CACHE_AT, Attachments
from longshore.fleet.objects import Placement, desired_objects, storage_container
from longshore.fleet.yaml import dump_yaml
from longshore.version import Version
from longshore_runtime.errors import LongshoreError
from longshore_runtime.manifest import Manifest, Serving
from longshore_runtime.pull.cache.settings import read_settings
from longshore_runtime.pull.policy import KEYS, MODE
from longshore_runtime.serve.__main__ import build_parser

MANIFESTS = Path(__file__).parents[3] / "manifests"
VARIANTS = {
    "cache/container.yaml": Attachments("/var/cache/longshore"),
    "cache/claim.yaml": Attachments("pvc://longshore-cache"),
    "signed/container.yaml": Attachments(keys="longshore-keys"),
}


def render(attachments: Attachments, engine: str = "vllm") -> tuple[Any, Any, Any]:
    digest = "0" * 64
    version = Version("m", "1", digest, f"s3://models/m/trees/{digest}", "2026-11-21T10:00:00.000000Z", "ana")
    served = Composition(version, version, Manifest(files=()), (), Serving(engine=engine))
    runtime, container, service = desired_objects(served, Placement(attachments=attachments))
    return runtime, container["spec"]["container"], service["spec"]["predictor"]


def mounts(container: Any) -> dict[str, tuple[str, bool, str | None]]:
    found = container.get("volumeMounts", [])
    return {one["mountPath"]: (one["name"], one.get("readOnly", False), one.get("subPath")) for one in found}


@pytest.mark.parametrize(("place", "root"), [("/srv/cache", True), ("pvc://claim", False)])
def test_the_cache_is_written_by_the_initializer_and_read_by_the_engine(place: str, root: bool) -> None:
    runtime, initializer, predictor = render(Attachments(place, "500GiB"))
    (volume,) = predictor["volumes"]
    source = {"hostPath": {"path": "/srv/cache", "type": "DirectoryOrCreate"}}
    assert volume == {"name": volume["name"]} | (source if root else {"persistentVolumeClaim": {"claimName": "claim"}})
    assert mounts(initializer) == {CACHE_AT: (volume["name"], False, None)}
    assert mounts(predictor["model"]) == {
        CACHE_AT: (volume["name"], True, None),
        f"{CACHE_AT}/leases": (volume["name"], False, "leases"),
    }
    settings = read_settings({one["name"]: one.get("value", "") for one in initializer["env"]})
    assert settings
    assert (str(settings.root), settings.limit) == (CACHE_AT, 500 * 1024**3)
    context = initializer["securityContext"]
    assert (context.get("runAsUser"), context["runAsNonRoot"]) == ((0, False) if root else (None, True))
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert predictor["storageContainerName"] == ("longshore-cache" if root else "longshore-claim")
    assert runtime == render(Attachments())[0], "the runtime is shared with services that have no cache"


def test_the_keys_are_mounted_where_the_initializer_looks_for_them() -> None:
    _, initializer, predictor = render(Attachments("/srv/cache", keys="signers"))
    told = {one["name"]: one.get("value", "") for one in initializer["env"]}
    (volume,) = [one for one in predictor["volumes"] if "secret" in one]
    assert volume["secret"] == {"secretName": "signers"}
    assert mounts(initializer)[told[KEYS]] == (volume["name"], True, None)
    assert told[MODE] == "require"
    assert predictor["storageContainerName"] == "longshore-cache-signed"


def test_adapters_may_appear_where_the_launcher_looks_for_them() -> None:
    runtime, initializer, predictor = render(Attachments(adapters="pvc://team-adapters"))
    (volume,) = predictor["volumes"]
    assert volume == {"name": volume["name"], "persistentVolumeClaim": {"claimName": "team-adapters"}}
    options, rest = build_parser().parse_known_args(predictor["model"]["args"])
    assert (mounts(predictor["model"]), rest) == ({str(options.adapters_dir): (volume["name"], True, None)}, [])
    assert (runtime, initializer) == render(Attachments())[:2]
    assert predictor["storageContainerName"] == "longshore", "the initializer has nothing to do with them"
    together = render(Attachments("pvc://claim", keys="signers", adapters="pvc://claim"))[2]
    names = [one["name"] for one in together["volumes"]]
    assert len(names) == len(set(names)) == 3
    assert {one["name"] for one in together["model"]["volumeMounts"]} < set(names)
    with pytest.raises(LongshoreError, match="sglang takes no adapters while it runs; leave --adapters-dir out"):
        render(Attachments(adapters="pvc://claim"), engine="sglang")


def test_what_is_compiled_is_kept_where_the_launcher_puts_it() -> None:
    runtime, initializer, predictor = render(Attachments(compiled="pvc://compiled"))
    (volume,) = predictor["volumes"]
    assert volume == {"name": volume["name"], "persistentVolumeClaim": {"claimName": "compiled"}}
    (container,) = runtime["spec"]["containers"]
    options, rest = build_parser().parse_known_args([*container["args"][1:], *predictor["model"]["args"]])
    assert mounts(predictor["model"]) == {str(options.cache_dir): (volume["name"], False, None)}
    assert (options.keep_compiled, rest) == (True, [])
    assert volume["name"] not in {one["name"] for one in runtime["spec"]["volumes"]}, "the runtime's own stands beside it"
    assert (runtime, initializer) == render(Attachments())[:2]


def test_what_no_pod_could_be_given_is_refused() -> None:
    for attachments, why in (
        (Attachments("cache"), "no place for a cache"),
        (Attachments("/srv/../etc"), "no place for a cache"),
        (Attachments("pvc://claim/folder"), "no place for a cache"),
        (Attachments(cache_size="5Gi"), "give --cache, too"),
        (Attachments("/srv", "much"), "not a size"),
        (Attachments(keys=""), "'' is not the name of a secret"),
        (Attachments(keys="a/b"), "not the name of a secret"),
        (Attachments(adapters="/srv/adapters"), "no place where adapters may appear; give a claim"),
        (Attachments(adapters="pvc://claim/folder"), "no place where adapters may appear"),
        (Attachments(compiled="/srv/compiled"), "no place where compiled code is kept; give a claim"),
        (Attachments(adapters=""), "'' is no place where adapters may appear"),
    ):
        with pytest.raises(LongshoreError, match=why):
            render(attachments)


def test_the_manifests_hold_what_is_rendered() -> None:
    for name, attachments in VARIANTS.items():
        assert (MANIFESTS / name).read_text() == dump_yaml([storage_container("longshore", attachments=attachments)])
    for folder in ("cache", "signed"):
        listed = yaml.safe_load((MANIFESTS / folder / "kustomization.yaml").read_text())["resources"]
        assert {f"{folder}/{name}" for name in listed} == {name for name in VARIANTS if name.startswith(folder)}
