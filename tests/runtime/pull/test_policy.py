"""Pods that ask for signatures: nothing of an unsigned tree is fetched, through the cache or past it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from longshore import Registry
from longshore.signing import Signer, sign
from longshore_runtime import termination
from longshore_runtime.pull import __main__ as initializer
from support.keys import Pair, make_pair
from support.models import make_model


@dataclass
class Pod:
    """Initializers with a mounted secret; `said` is what the last of them left for KServe."""

    folder: Path
    registry: Registry
    ours: Pair
    capture: pytest.CaptureFixture[str]

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    def start(self, uri: str, name: str) -> int:
        self.capture.readouterr()
        return initializer.main([uri, str(self.folder / name)])

    def signed(self) -> str | None:
        verdict = json.loads(self.capture.readouterr().out)
        left = json.loads((self.folder / "log").read_text())
        assert left == {"verdict": "done"} | {name: value for name, value in verdict.items() if value is not None}
        found: str | None = verdict["signed"]
        return found

    def refused(self, uri: str, name: str, why: str) -> None:
        """One line, and nothing was fetched."""
        code = self.start(uri, name)
        lines = self.capture.readouterr().err.splitlines()
        assert (code, [line for line in lines if line.startswith("error: ")]) == (1, lines[-1:])
        assert why in lines[-1]
        assert why in json.loads((self.folder / "log").read_text())["error"]
        assert not list((self.folder / name).glob("*"))

    def sign(self, reference: str) -> None:
        sign(self.registry, reference, Signer(self.ours.private))


@pytest.fixture
def pod(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pod:
    ours = make_pair(tmp_path / "made", "ours")
    (tmp_path / "keys").mkdir()
    shutil.copy(ours.public, tmp_path / "keys/ours.pub")
    (tmp_path / "log").touch()
    monkeypatch.setattr(termination, "LOG", tmp_path / "log")
    for name, value in (("SIGNATURES", "require"), ("KEYS", str(tmp_path / "keys")), ("REGISTRY", root), ("CACHE_SIZE", "1GB")):
        monkeypatch.setenv(f"LONGSHORE_{name}", value)
    registry = Registry(root)
    registry.push(make_model(tmp_path / "model"), "m:1")
    return Pod(tmp_path, registry, ours, capsys)


def test_what_is_unsigned_or_signed_by_others_is_refused_before_anything_is_fetched(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = pod.registry.resolve("m:1").uri
    for cache in ("", str(pod.folder / "cache")):
        monkeypatch.setenv("LONGSHORE_CACHE", cache)
        pod.refused(uri, "unsigned", "is not signed")
    pod.sign("m:1")
    assert pod.start(uri, "first") == 0  # fills the cache
    assert pod.signed() == "ours.pub"
    assert pod.start(uri, "second") == 0
    assert pod.signed() == "ours.pub"
    assert pod.start("longshore://m/1", "by-name") == 0
    assert pod.signed() == "ours.pub"
    (pod.keys / "ours.pub").unlink()
    pod.refused(uri, "keyless", "there are no keys in")
    shutil.copy(make_pair(pod.folder / "made", "theirs").public, pod.keys / "theirs.pub")
    for cache in (str(pod.folder / "cache"), ""):
        monkeypatch.setenv("LONGSHORE_CACHE", cache)
        pod.refused(uri, "others", "no signature of")
    monkeypatch.setenv("LONGSHORE_SIGNATURES", "off")
    assert pod.start(uri, "off") == 0
    assert pod.signed() is None


def test_what_lay_in_the_cache_unsigned_is_asked_for_its_signature(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod without the policy has filled the cache; one with it takes the tree only once it is signed."""
    uri = pod.registry.resolve("m:1").uri
    monkeypatch.setenv("LONGSHORE_CACHE", str(pod.folder / "cache"))
    monkeypatch.setenv("LONGSHORE_SIGNATURES", "off")
    assert pod.start(uri, "first") == 0
    monkeypatch.setenv("LONGSHORE_SIGNATURES", "require")
    pod.refused(uri, "second", "is not signed")
    pod.sign("m:1")
    assert pod.start(uri, "second") == 0
    assert pod.signed() == "ours.pub"


def test_signatures_that_a_pull_left_count_and_plain_folders_have_none(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    pod.refused((pod.folder / "model").as_uri(), "plain", "has no manifest that somebody could have signed")
    pod.sign("m:1")
    assert pod.start(pod.registry.resolve("m:1").uri, "tree") == 0
    assert pod.start((pod.folder / "tree").as_uri(), "again") == 0
    assert pod.signed() == "ours.pub"
    monkeypatch.setenv("LONGSHORE_SIGNATURES", "maybe")
    pod.refused("s3://b/m", "unknown", "LONGSHORE_SIGNATURES is neither off nor require: maybe")
    monkeypatch.setenv("LONGSHORE_SIGNATURES", "require")
    monkeypatch.setenv("LONGSHORE_KEYS", "")
    pod.refused("s3://b/m", "unmounted", "there are no keys at /etc/longshore/keys")
