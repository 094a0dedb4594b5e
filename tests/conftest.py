"""Fixtures for all tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from support.command import CommandLine
from support.gguf_models import find_smollm2_gguf
from support.hubs import FakeHuggingFace, FakeModelScope, run_huggingface, run_modelscope
from support.models import find_smollm2, make_model
from support.servers import S3Server, run_minio, run_moto, run_rclone, run_versitygw
from support.sites import FakeSite, run_site
from testbed.build import binary

pytest_plugins = ["testbed.fixtures", "testbed.node_fixtures"]

settings.register_profile("longshore", deadline=None, derandomize=True)
settings.load_profile("longshore")


def pytest_configure() -> None:
    """Whoever runs the tests in the background has SIGINT ignored, which processes inherit: ours are to obey it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What vLLM finds out about its model classes (11 s each time), kept between the tests as a user's home keeps it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("vllm")
        patch.setenv("VLLM_CACHE_ROOT", str(folder))
        yield folder


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the S3 tests need before the first test, whose time limit should not count it."""
    used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for name in ("versitygw", "minio"):
        if {"root", "source", name} & used and not session.config.option.collectonly:
            binary(name)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real small model."""
    return find_smollm2()


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The same as one GGUF file."""
    return find_smollm2_gguf()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model's directory."""
    return make_model(tmp_path / "model")


@pytest.fixture
def longshore(tmp_path: Path) -> CommandLine:
    """The command line, with a home of its own."""
    home = tmp_path / "home"
    home.mkdir()
    return CommandLine(home)


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    with run_moto() as server:
        yield server


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with run_versitygw(tmp_path_factory.mktemp("versitygw")) as server:
        yield server


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with run_minio(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with run_rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(params=["file", "moto", "versitygw", "minio"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The root URI of an empty registry, on each kind of store in turn."""
    return open_root(request.param, request, tmp_path, monkeypatch)


def open_root(kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The root URI of an empty registry on one kind of store."""
    if kind == "file":
        return (tmp_path / "registry").as_uri()
    server: S3Server = request.getfixturevalue(kind)
    use_server(server, monkeypatch)
    bucket = f"b{abs(hash(request.node.nodeid)):x}"
    server.make_bucket(bucket)
    return f"s3://{bucket}/registry"


@pytest.fixture
def huggingface(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHuggingFace]:
    """A Hugging Face hub, which this process and those that it starts take for the real one."""
    with run_huggingface() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


@pytest.fixture
def modelscope(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeModelScope]:
    """A ModelScope, which this process and those that it starts take for the real one."""
    with run_modelscope() as hub:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.endpoint)
        monkeypatch.delenv("MODELSCOPE_API_TOKEN", raising=False)
        yield hub


@pytest.fixture
def site() -> Iterator[FakeSite]:
    """A web server that serves the files that a test gives it."""
    with run_site() as made:
        yield made


def use_server(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point this process's S3 clients at a server."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
