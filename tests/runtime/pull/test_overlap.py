"""A pull in two processes: what an engine starts with, and the weights that arrive while it does."""

from __future__ import annotations

import json
import os
import signal
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from conftest import use_server
from longshore import Registry
from longshore_runtime.arrivals import Arrivals
from longshore_runtime.handover import Handover, read_handover, write_handover
from longshore_runtime.handover_files import HANDOVER, PREVIEW
from longshore_runtime.manifest import File, Manifest, Serving
from longshore_runtime.progress import Silent
from longshore_runtime.pull.ahead import lend
from longshore_runtime.pull.cache.settings import ROOT
from longshore_runtime.pull.mode import MODE, READONLY
from longshore_runtime.pull.sources import s3
from longshore_runtime.pull.sources.file import FileSource
from support.models import flip_byte, make_model
from support.servers import S3Server
from support.throttle import run_throttle

MIB = 1024**2
CHUNK = 8 * MIB
SHARDS = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two shards of three chunks each, an empty file, and one in a folder."""
    made = make_model(tmp_path / "model", elements=10 * MIB)
    (made / "empty").touch()
    (made / "extra").mkdir()
    (made / "extra/notes.txt").write_text("notes")
    return made


@pytest.fixture
def uri(versitygw: S3Server, model: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A version's tree in a bucket, which the environment opens."""
    use_server(versitygw, monkeypatch)
    return push(versitygw, model)


def push(server: S3Server, model: Path) -> str:
    bucket = f"overlap-{os.urandom(4).hex()}"
    server.make_bucket(bucket)
    return Registry(f"s3://{bucket}").push(model, "m:1").version.uri


def initialize(uri: str, target: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "longshore_runtime.pull", uri, str(target)]
    environment = {**os.environ, MODE: "overlap", **settings}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=180)


def begin_rest(target: Path, told: Path, **settings: str) -> subprocess.Popen[bytes]:
    """The command that pulls the weights, in a container without credentials."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | settings
    with open(told, "wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "longshore_runtime.pull.weights", str(target)],
            stdout=out, stderr=subprocess.PIPE, env=environment,
        )  # fmt: skip


def finish_rest(target: Path, told: Path, **settings: str) -> tuple[int, Arrivals]:
    process = begin_rest(target, told, **settings)
    with process:
        process.communicate(timeout=180)
    return process.returncode, Arrivals(told).update()


def change(target: Path, **loan: object) -> Handover:
    """Change what the initializer has lent."""
    found = read_handover(target)
    assert found
    changed = found.model_copy(update={"loan": found.loan.model_copy(update=loan)})
    write_handover(target, changed)
    return changed


def test_the_weights_come_later_and_everything_is_as_pushed(uri: str, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    done = initialize(uri, target, LONGSHORE_MAX_RATE="1GB/s")
    assert done.returncode == 0, done.stderr
    weights = sum((model / name).stat().st_size for name in SHARDS)
    assert json.loads(done.stdout)["to_come"] == weights - 2 * CHUNK
    assert stat.S_IMODE((target / HANDOVER).stat().st_mode) == 0o600
    assert not (target / ".longshore/manifest.json").exists()
    there = {path.name for path in target.rglob("*") if path.is_file() and ".longshore" not in path.parts}
    assert there == {path.name for path in model.rglob("*") if path.is_file()} - set(SHARDS)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in (target / HANDOVER).read_text()
    lent = read_handover(target)
    assert lent
    assert lent.loan.settings["LONGSHORE_MAX_RATE"] == "1000000000"
    code, told = finish_rest(target, tmp_path / "told")
    assert (code, told.error, told.preview) == (0, None, str(target / PREVIEW))
    assert told.files == set(SHARDS)
    assert told.bytes == told.size == weights
    assert told.verdict
    assert (told.verdict["verified"], told.verdict["fetched"]) == ("digest", weights - 2 * CHUNK)
    for path in (path for path in model.rglob("*") if path.is_file()):
        name = path.relative_to(model)
        assert (target / name).read_bytes() == (target / PREVIEW / name).read_bytes() == path.read_bytes()
    assert not (target / HANDOVER).exists()
    assert (target / ".longshore/manifest.json").exists()
    assert json.loads(initialize(uri, target, **{MODE: "before"}).stdout)["fetched"] == 0


def test_an_engine_sees_the_heads_of_what_is_still_to_come(
    versitygw: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And killed in the middle, the next one fetches only what is not there yet, and first judges what is."""
    use_server(versitygw, monkeypatch)
    model, target = make_model(tmp_path / "model", shards=3, elements=20 * MIB), tmp_path / "target"
    first, *_, last = sorted(path.name for path in model.glob("*.safetensors"))
    uri, server = push(versitygw, model), urlsplit(versitygw.endpoint)
    assert server.hostname
    assert server.port
    with run_throttle("127.0.0.1", (server.hostname, server.port), rate=40 * MIB) as endpoint:
        assert initialize(uri, target, AWS_ENDPOINT_URL=endpoint).returncode == 0
        process, told = begin_rest(target, tmp_path / "told"), Arrivals(tmp_path / "told")
        with process:
            await_event(lambda: told.update().preview is not None, "the preview is there")
            head = (target / PREVIEW / last).read_bytes()
            assert not (target / last).exists()
            await_event(lambda: first in told.update().files, "the first shard is there")
            assert last not in told.files
            process.kill()
            process.communicate(timeout=180)
        code, told = finish_rest(target, tmp_path / "again")
    assert code == 0, told.error
    whole = (model / last).read_bytes()
    assert head == whole[: 8 + struct.unpack("<Q", whole[:8])[0]]
    assert told.verdict
    assert 0 < told.verdict["fetched"] <= sum(path.stat().st_size for path in model.glob("*.safetensors") if path.name != first)
    assert (target / last).read_bytes() == whole


def await_event(happened: object, what: str) -> None:
    end = time.monotonic() + 120
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_a_flipped_byte_never_gets_its_name(uri: str, versitygw: S3Server, tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert initialize(uri, target).returncode == 0
    assert versitygw.folder
    flip_byte(versitygw.folder / uri.removeprefix("s3://") / SHARDS[1], CHUNK + 5)
    code, told = finish_rest(target, tmp_path / "told")
    assert code == 1
    assert told.error
    assert SHARDS[1] in told.error
    assert not (target / SHARDS[1]).exists()
    assert not (target / PREVIEW / SHARDS[1]).is_symlink()
    assert told.verdict is None
    assert (target / HANDOVER).exists()


def test_addresses_whose_time_is_over_are_renewed_with_the_pods_own_credentials(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "LENT", 1)
    target = tmp_path / "target"
    assert initialize(uri, target).returncode == 0
    lent = read_handover(target)
    assert lent
    short = s3.S3Source(uri).lend(lent.loan.addresses)
    assert short
    change(target, addresses=short.addresses, until=time.time())
    time.sleep(2)
    code, told = finish_rest(target, tmp_path / "told", AWS_EC2_METADATA_DISABLED="true")
    assert code == 1
    assert told.error
    assert "are expired, and this container has no credentials" in told.error
    assert told.hint
    keys = {name: os.environ[name] for name in KEYS}
    code, told = finish_rest(target, tmp_path / "again", **keys, **lent.loan.settings)
    assert (code, told.error) == (0, None)
    assert told.files == set(SHARDS)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({MODE: "before"}, ""),
        ({READONLY: ""}, 'storage.kserve.io/readonly: "false"'),
        ({ROOT: "cache"}, ""),
        ({"S3_VERIFY_SSL": "0"}, "no addresses to hand over"),
    ],
)
def test_where_it_cannot_be_everything_is_pulled_before(
    versitygw: S3Server, settings: dict[str, str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_server(versitygw, monkeypatch)
    uri = push(versitygw, make_model(tmp_path / "model", shards=1, elements=10 * MIB))
    (tmp_path / "cache").mkdir()
    told = {name: str(tmp_path / "cache") if name == ROOT else value for name, value in settings.items()}
    done = initialize(uri, tmp_path / "target", **told)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["to_come"] == 0
    assert reason in done.stderr
    assert (tmp_path / "target/model-00001-of-00001.safetensors").exists()
    assert not (tmp_path / "target" / HANDOVER).exists()


def test_engines_that_do_not_wait_get_everything_before() -> None:
    said = Said()
    files = (File(path="model.gguf", size=9 * MIB, sha256="0" * 64, blake3=("0" * 64, "0" * 64)),)
    for serving in (Serving(engine="other"), Serving()):
        assert lend(FileSource("file:///nowhere"), Manifest(files=files, serving=serving), said) is None
    assert said.words == [
        "everything is pulled before the engine starts: other does not wait for weights",
        "everything is pulled before the engine starts: the configuration lies in the weights",
    ]


class Said(Silent):
    def __init__(self) -> None:
        self.words: list[str] = []

    def say(self, text: str) -> None:
        self.words.append(text)


def test_a_mode_that_is_none_is_refused(uri: str, tmp_path: Path) -> None:
    done = initialize(uri, tmp_path / "target", **{MODE: "later"})
    assert done.returncode == 1
    assert "write overlap or before" in done.stderr


def test_told_to_stop_it_ends_and_resumes(uri: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert initialize(uri, target).returncode == 0
    process = begin_rest(target, tmp_path / "told")
    with process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=180)
    assert process.returncode == -signal.SIGTERM
    assert finish_rest(target, tmp_path / "again")[0] == 0
