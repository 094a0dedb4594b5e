"""The images, built from the top-level Dockerfile: what is in them, and that they run as anybody on a read-only root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from longshore import Registry, __version__
from longshore.signing import Signer, sign
from support.containers import ANYBODY, Container
from support.keys import make_pair
from support.models import flip_byte
from support.servers import S3Server
from testbed import images
from testbed.images import TAG_PREFIX, Image
from testbed.packages import need

MEGABYTE = 10**6
PULL = ("python3", "-m", "longshore_runtime.pull")

pytestmark = pytest.mark.timeout(600)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def system(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the initializer's image."""
    folder = tmp_path_factory.mktemp("system")
    folder.chmod(0o755)
    image.unpack(folder)
    return folder


@pytest.fixture
def run_container(system: Path, image: Image, tmp_path: Path) -> Run:
    """Run the image as anybody on its read-only root, with this machine's network and one writable folder, /mnt/models."""
    need("runc")
    (tmp_path / "models").mkdir()
    (tmp_path / "models").chmod(0o777)
    system.joinpath("mnt/models").mkdir(exist_ok=True)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_anybody(image, system, tmp_path, arguments, environment)

    return run


def run_anybody(
    image: Image, system: Path, bundle: Path, arguments: Sequence[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a container of the image, whose files are in `system`, from a folder that has the folder `models`."""
    given = [f"{name}={value}" for name, value in environment.items()]
    words = image.config["Entrypoint"] + list(arguments)
    return Container(system, bundle, words, image.config["Env"] + given, writable={"/mnt/models": bundle / "models"}).run()


def test_the_initializer_is_small_and_unprivileged(image: Image) -> None:
    assert image.tag == f"{TAG_PREFIX}/storage-initializer:{__version__}"
    assert image.unpacked_size() <= 250 * MEGABYTE
    assert tuple(image.config["Entrypoint"]) == PULL
    assert image.config["User"] == "1000"


def test_the_initializer_holds_nothing_of_the_machine_that_built_it(system: Path) -> None:
    assert not (system / "etc/pip.conf").exists()
    assert not list((system / "opt/longshore").glob("longshore"))
    ours = system / "opt/longshore/longshore_runtime"
    assert len(list(ours.rglob("*.pyc"))) == len(list(ours.rglob("*.py")))


def test_the_initializer_has_libcurl_for_tls(system: Path, image: Image, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    words = ["python3", "-c", "from longshore_runtime.ranges.curl import load_curl; print(load_curl().version)"]
    done = Container(system, tmp_path, words, image.config["Env"], writable={"/mnt/models": tmp_path / "models"}).run()
    assert done.stdout.startswith("PycURL/"), done.stderr


def test_anybody_pulls_a_version_on_a_read_only_root(
    run_container: Run, versitygw: S3Server, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = push(versitygw, model, monkeypatch)
    done = run_container(version.uri, "/mnt/models", **versitygw.environment)
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)
    assert (verdict["verified"], verdict["digest"]) == ("digest", version.digest)
    for file in model.iterdir():
        pulled = tmp_path / "models" / file.name
        assert pulled.read_bytes() == file.read_bytes()
        assert pulled.stat().st_uid == ANYBODY


def test_a_damaged_version_is_refused_by_name(
    run_container: Run, versitygw: S3Server, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = push(versitygw, model, monkeypatch)
    assert versitygw.folder
    (damaged,) = versitygw.folder.glob(f"{version.uri.removeprefix('s3://')}/model-00001*")
    flip_byte(damaged)
    done = run_container(version.uri, "/mnt/models", **versitygw.environment)
    assert done.returncode == 1
    assert damaged.name in done.stderr


def test_the_initializer_reads_signatures(
    run_container: Run, system: Path, versitygw: S3Server, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what the image holds: the library that signs is not in it."""
    version, pair = push(versitygw, model, monkeypatch), make_pair(tmp_path / "keys", "ours")
    own = {"LONGSHORE_SIGNATURES": "require"}
    (system / "etc/longshore/keys").mkdir(parents=True)
    shutil.copy(pair.public, system / "etc/longshore/keys")
    done = run_container(version.uri, "/mnt/models", **versitygw.environment, **own)
    assert (done.returncode, "is not signed" in done.stderr) == (1, True), done.stderr
    sign(Registry(version.uri.partition("/tiny/")[0]), "tiny:1", Signer(pair.private))
    done = run_container(version.uri, "/mnt/models", **versitygw.environment, **own)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["signed"] == "ours.pub"


def test_the_command_line_runs_as_anybody(
    versitygw: S3Server, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("runc")
    tools = images.archive("tools", __version__)
    assert (tools.config["User"], tools.config["Entrypoint"]) == ("1000", ["python3", "-m", "longshore"])
    for name in ("system", "models"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    tools.unpack(tmp_path / "system")
    (tmp_path / "system/mnt/models").mkdir()
    version = push(versitygw, model, monkeypatch)
    environment = versitygw.environment | {"LONGSHORE_REGISTRY": version.uri.partition("/tiny/")[0]}
    for arguments in (["list", "--json"], ["render", "tiny:1"], ["pull", "tiny:1", "/mnt/models"]):
        done = run_anybody(tools, tmp_path / "system", tmp_path, arguments, environment)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "models/config.json").read_bytes() == (model / "config.json").read_bytes()


def push(server: S3Server, model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"images-{os.urandom(4).hex()}"
    server.make_bucket(bucket)
    registry = Registry(f"s3://{bucket}/registry")
    registry.push(model, "tiny:1")
    return registry.resolve("tiny:1")


def test_a_second_build_finds_the_first(image: Image) -> None:
    made = image.archive.stat()
    again = images.archive("storage-initializer", __version__).archive.stat()
    assert (again.st_ino, again.st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
