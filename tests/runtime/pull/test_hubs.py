"""Pulls from hubs: what is asked, what is verified, and what a refusal says."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from longshore_runtime.errors import Corrupt, Interrupted, LongshoreError, NotFound, Refused, StoreFailed
from longshore_runtime.progress import Silent
from longshore_runtime.pull import engine
from longshore_runtime.pull.patterns import Patterns
from longshore_runtime.pull.sources import huggingface as huggingface_source
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.sources.hub import parse_address
from longshore_runtime.pull.sources.huggingface import find_token
from support.hubs import TOKEN, Asked, FakeHuggingFace, FakeModelScope, Reply, json_reply, model_of, sha256

CHUNK = 8 * 1024 * 1024
WEIGHTS = "model.safetensors"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    WEIGHTS: random.Random(1).randbytes(3 * CHUNK + 1000),
    "sub/small.bin": b"weights" * 100,
    "sub/vocab.txt": "größer".encode(),
    "empty.txt": b"",
    "empty.bin": b"",
    "a b & c%.txt": b"odd",
}
HUBS = {"hf": "huggingface", "modelscope": "modelscope"}


@pytest.fixture(params=HUBS)
def hub(request: pytest.FixtureRequest) -> FakeHuggingFace | FakeModelScope:
    """Each hub with one model, `org/m`."""
    made: FakeHuggingFace | FakeModelScope = request.getfixturevalue(HUBS[request.param])
    made.models["org/m"] = model_of(FILES)
    return made


@pytest.fixture
def uri(hub: FakeHuggingFace | FakeModelScope) -> str:
    return f"{'hf' if isinstance(hub, FakeHuggingFace) else 'modelscope'}://org/m"


@pytest.fixture
def hf(huggingface: FakeHuggingFace) -> FakeHuggingFace:
    huggingface.models["org/m"] = model_of(FILES)
    return huggingface


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and not {".longshore", ".cache"} & set(path.parts))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def is_weights(asked: Asked) -> bool:
    return sha256(FILES[WEIGHTS]) in asked.path or f"FilePath={WEIGHTS}" in asked.path


def flip(times: int = 10**6) -> Callable[[Asked, Reply], Reply]:
    """Damage one byte of the weights, as often as that."""
    left = [times]

    def spoil(asked: Asked, reply: Reply) -> Reply:
        if reply.status != 206 or not is_weights(asked) or left[0] == 0:
            return reply
        left[0] -= 1
        return replace(reply, body=reply.body[:-1] + bytes([reply.body[-1] ^ 1]))

    return spoil


def test_a_model_arrives_verified(hub: FakeHuggingFace | FakeModelScope, uri: str, tmp_path: Path) -> None:
    verdict = engine.pull(uri, tmp_path / "t", Silent())
    assert contents(tmp_path / "t") == FILES
    assert (verdict.verified, verdict.digest, verdict.source) == ("hub", None, uri)
    assert verdict.fetched == verdict.size == sum(map(len, FILES.values()))
    assert list((tmp_path / "t" / ".longshore").iterdir()) == []
    again = engine.pull(uri, tmp_path / "t", Silent())
    assert (again.fetched, contents(tmp_path / "t")) == (0, FILES)


CLIENTS = {
    "hf": "from huggingface_hub import snapshot_download as d; import sys; d('org/m', local_dir=sys.argv[1])",
    "modelscope": "from modelscope_hub.compat import snapshot_download as d; import sys; d('org/m', local_dir=sys.argv[1])",
}


def test_the_hubs_own_client_takes_the_fake_for_real(hub: FakeHuggingFace | FakeModelScope, uri: str, tmp_path: Path) -> None:
    environment = os.environ | {"HF_HUB_DISABLE_XET": "1", "HOME": str(tmp_path)}
    code = CLIENTS[uri.partition(":")[0]]
    command = [sys.executable, "-c", code, str(tmp_path / "t")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "t") == FILES


def test_a_byte_that_stays_wrong_is_refused_by_name(hub: FakeHuggingFace | FakeModelScope, uri: str, tmp_path: Path) -> None:
    hub.spoil = flip()
    with pytest.raises(Corrupt, match=rf"{WEIGHTS} from {uri} does not have the digest sha256:[0-9a-f]{{64}}"):
        engine.pull(uri, tmp_path / "t", Silent())
    assert WEIGHTS not in contents(tmp_path / "t")
    assert not list((tmp_path / "t" / ".longshore").rglob(WEIGHTS))


def test_a_byte_that_was_wrong_once_is_fetched_once_more(
    hub: FakeHuggingFace | FakeModelScope, uri: str, tmp_path: Path
) -> None:
    hub.spoil = flip(1)
    verdict = engine.pull(uri, tmp_path / "t", Silent())
    assert contents(tmp_path / "t") == FILES
    assert verdict.fetched == verdict.size + len(FILES[WEIGHTS])


def test_small_files_are_held_against_gits_names(hf: FakeHuggingFace, tmp_path: Path) -> None:
    hf.spoil = lambda asked, reply: (
        replace(reply, body=b'{"model_type": "llamb"}') if asked.path.endswith("/config.json") else reply
    )
    with pytest.raises(Corrupt, match=r"config.json from hf://org/m does not have the digest git:[0-9a-f]{40}"):
        engine.pull("hf://org/m", tmp_path / "t", Silent())


def test_what_lay_there_is_held_against_the_hub(hub: FakeHuggingFace | FakeModelScope, uri: str, tmp_path: Path) -> None:
    engine.pull(uri, tmp_path / "t", Silent())
    damaged = tmp_path / "t" / WEIGHTS
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    verdict = engine.pull(uri, tmp_path / "t", Silent())
    assert contents(tmp_path / "t") == FILES
    assert verdict.fetched == len(FILES[WEIGHTS])


SLOW_PULL = """
import sys, time
from pathlib import Path
from longshore_runtime.progress import Silent
from longshore_runtime.pull import engine
from longshore_runtime.pull.sources import open_source
from support.faults import FaultySource

engine.open_source = lambda uri: FaultySource(open_source(uri), wait)

def wait(count, path, buffer):
    time.sleep(60 if path == 'model.safetensors' and len(buffer) == 1000 else 0)

engine.pull(sys.argv[1], Path(sys.argv[2]), Silent())
"""


@pytest.mark.parametrize("damage", [False, True])
def test_a_killed_pull_goes_on_but_is_never_trusted(hf: FakeHuggingFace, tmp_path: Path, damage: bool) -> None:
    target = tmp_path / "t"
    journal, partial = (target / ".longshore" / name / WEIGHTS for name in ("journal", "partial"))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", SLOW_PULL, "hf://org/m", str(target)], env=environment) as child:
        while not (journal.exists() and len(journal.read_bytes().splitlines()) == 4):
            assert child.poll() is None
            time.sleep(0.05)
        child.kill()
    assert WEIGHTS not in contents(target)
    if damage:
        with open(partial, "r+b") as file:
            file.write(b"damaged")
    verdict = engine.pull("hf://org/m", target, Silent())
    assert contents(target) == FILES
    weights = len(FILES[WEIGHTS])
    missing = verdict.fetched - (weights if damage else 0)
    assert 0 < missing <= CHUNK, "three of the four chunks were there"


def test_a_branch_that_moves_meanwhile_changes_nothing(hf: FakeHuggingFace, tmp_path: Path) -> None:
    model = hf.models["org/m"]
    first = model.names["main"]

    def move(asked: Asked, reply: Reply) -> Reply:
        if "/tree/" in asked.path:
            model.commits["f" * 40] = {"config.json": b"other"}
            model.names["main"] = "f" * 40
        return reply

    hf.spoil = move
    verdict = engine.pull("hf://org/m", tmp_path / "t", Silent())
    assert (contents(tmp_path / "t"), verdict.revision) == (FILES, first)
    assert all(first in asked.path for asked in hf.asked if "/resolve/" in asked.path)
    assert engine.pull("hf://org/m:main", tmp_path / "u", Silent()).revision == "f" * 40


@pytest.mark.parametrize("spelling", [":v1", "@v1", "", ":COMMIT", "@COMMIT"])
def test_revisions_are_spelt_as_kserve_and_as_the_hub_do(hf: FakeHuggingFace, spelling: str, tmp_path: Path) -> None:
    commit = hf.models["org/m"].names["v1"]
    assert open_source("hf://org/m" + spelling.replace("COMMIT", commit)).revision == commit


def test_patterns_choose_files(hub: FakeHuggingFace | FakeModelScope, uri: str, tmp_path: Path) -> None:
    engine.pull(uri, tmp_path / "t", Silent(), patterns=Patterns(allow=("*.json", "sub/"), ignore=("*.bin",)))
    assert set(contents(tmp_path / "t")) == {"config.json", "sub/vocab.txt"}
    with pytest.raises(NotFound, match=r"none of the 7 files at .* is wanted by the patterns"):
        engine.pull(uri, tmp_path / "u", Silent(), patterns=Patterns(allow=("*.gguf",)))


def test_a_long_listing_comes_in_pages(hf: FakeHuggingFace, tmp_path: Path) -> None:
    hf.page_size = 2
    assert {entry.path for entry in open_source("hf://org/m").list_files()} == set(FILES)
    hf.spoil = lambda asked, reply: (
        replace(reply, headers={**reply.headers, "Link": '<http://elsewhere.example/x>; rel="next"'})
        if "/tree/" in asked.path
        else reply
    )
    with pytest.raises(StoreFailed, match="it goes on elsewhere"):
        list(open_source("hf://org/m").list_files())


@pytest.mark.parametrize("cursor", ["", "1"])
def test_a_listing_without_an_end_is_refused(hf: FakeHuggingFace, cursor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_source, "PAGES", 20)

    def go_on(asked: Asked, reply: Reply) -> Reply:
        if "/tree/" not in asked.path:
            return reply
        return Reply(200, b"[]", {"Link": f'<{hf.endpoint}{asked.path}{cursor}>; rel="next"'})

    hf.spoil = go_on
    with pytest.raises(StoreFailed, match="it has no end"):
        open_source("hf://org/m").list_files()
    assert len(hf.asked) <= 22


def test_a_file_that_claims_to_be_enormous_is_held_against_the_disk(hf: FakeHuggingFace, tmp_path: Path) -> None:
    item = {"type": "file", "path": "model.bin", "size": 10**18, "oid": "0" * 40}
    hf.spoil = lambda asked, reply: json_reply([item]) if "/tree/" in asked.path else reply
    with pytest.raises(StoreFailed, match=r"has room for .* and 1000000\.0 TB are still to come"):
        engine.pull("hf://org/m", tmp_path / "t", Silent())


def test_addresses_of_the_cdn_are_asked_anew_when_they_expire(
    hf: FakeHuggingFace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    served = []

    def expire(asked: Asked, reply: Reply) -> Reply:
        if reply.status == 206 and "Signature" in asked.path:
            served.append(asked)
            if len(served) == 2:
                hf.expire()
        return reply

    hf.spoil = expire
    engine.pull("hf://org/m", tmp_path / "t", Silent())
    assert contents(tmp_path / "t") == FILES
    assert all("authorization" not in asked.headers for asked in served), "the token is the hub's alone"
    assert any(asked.headers.get("authorization") == f"Bearer {TOKEN}" for asked in hf.asked)


def test_a_redirect_is_followed_once_a_file(hf: FakeHuggingFace, tmp_path: Path) -> None:
    source = open_source("hf://org/m")
    buffer = memoryview(bytearray(1000))
    for offset in range(0, 10_000, 1000):
        source.read_into(WEIGHTS, offset, buffer)
    assert sum("/resolve/" in asked.path for asked in hf.asked) == 1


def prepare(hf: FakeHuggingFace, case: str) -> str:
    match case:
        case "gated" | "private":
            hf.models["org/m"] = model_of(FILES, **{case: True})
        case "revision":
            return "hf://org/m:nope"
        case "absent":
            return "hf://org/nope"
    return "hf://org/m"


@pytest.mark.parametrize(
    ("case", "token", "message"),
    [
        ("gated", None, r"hf://org/m is gated: .*; accept at http://127.0.0.1:\d+/org/m, and set HF_TOKEN"),
        ("private", None, r"hf://org/m does not exist, or not for this account; check http://.*/org/m; if .* set HF_TOKEN"),
        ("absent", TOKEN, r"hf://org/nope does not exist, or not .* use the HF_TOKEN of an account that may"),
        ("revision", None, r"hf://org/m:nope does not exist: the model has no such revision; see http://.*/org/m/commits"),
        ("wrong token", "wrong-secret", r"the hub does not accept the token for hf://org/m; renew HF_TOKEN"),
        ("odd token", "with\nnewline", r"HF_TOKEN is not a token"),
    ],
)
def test_a_refusal_says_what_to_do(
    hf: FakeHuggingFace, case: str, token: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    uri = prepare(hf, case)
    with pytest.raises(LongshoreError, match=message) as caught:
        engine.pull(uri, tmp_path / "t", Silent())
    assert token is None or token not in str(caught.value)


def test_modelscopes_refusals_say_what_to_do(modelscope: FakeModelScope, monkeypatch: pytest.MonkeyPatch) -> None:
    modelscope.models["org/m"] = model_of(FILES, private=True)
    with pytest.raises(StoreFailed, match=r"ModelScope denies modelscope://org/m; look at .*/models/org/m, and set MODEL"):
        list(open_source("modelscope://org/m").list_files())
    with pytest.raises(NotFound, match="modelscope://org/nope does not exist"):
        list(open_source("modelscope://org/nope").list_files())
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
    assert list(open_source("modelscope://org/m").list_files())


@pytest.mark.parametrize(
    "listing",
    [
        {},
        "text",
        [1],
        [{}],
        [{"type": "file", "path": 1, "size": 1, "oid": "0" * 40}],
        [{"type": "file", "path": "x", "size": -1, "oid": "0" * 40}],
        [{"type": "file", "path": "x", "size": True, "oid": "0" * 40}],
        [{"type": "file", "path": "x", "size": 1, "oid": "../x"}],
        [{"type": "file", "path": "x", "size": 1, "oid": "0" * 40, "lfs": {"oid": "short", "size": 1}}],
        [{"type": "file", "path": "x", "size": 1, "oid": "0" * 40, "lfs": {"oid": 7}}],
        [{"type": "file", "path": "x", "size": 1, "oid": "0" * 40, "lfs": [1]}],
    ],
)
def test_a_listing_that_is_none_is_refused(hf: FakeHuggingFace, listing: object) -> None:
    hf.spoil = lambda asked, reply: json_reply(listing) if "/tree/" in asked.path else reply
    with pytest.raises(StoreFailed, match="the hub's listing of hf://org/m is not understood"):
        list(open_source("hf://org/m").list_files())


def test_a_commit_that_is_none_is_refused(hf: FakeHuggingFace) -> None:
    hf.spoil = lambda asked, reply: json_reply({"sha": "../../x"}) if "/revision/" in asked.path else reply
    with pytest.raises(StoreFailed, match="is not understood"):
        _ = open_source("hf://org/m").revision
    hf.spoil = lambda asked, reply: Reply(200, b"<html>") if "/revision/" in asked.path else reply
    with pytest.raises(StoreFailed, match="not JSON"):
        _ = open_source("hf://org/m").revision


@pytest.mark.parametrize("path", ["../evil", "/evil", "a/../../evil", "a\x00b", "C:\\evil", ".longshore/partial/x"])
def test_names_that_would_leave_the_target_are_refused(
    hub: FakeHuggingFace | FakeModelScope, uri: str, path: str, tmp_path: Path
) -> None:
    hub.models["org/m"] = model_of({"config.json": b"{}", path: b"evil"})
    with pytest.raises(Refused, match="cannot be used"):
        engine.pull(uri, tmp_path / "deep" / "t", Silent())
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://169.254.169.254/latest/meta-data/", "169.254.169.254 is a link-local address"),
        ("http://[fe80::1]/x", "fe80::1 is a link-local address"),
        ("http://[::ffff:169.254.169.254]/x", "169.254.169.254 is a link-local address"),
        ("http://0.0.0.0/x", "0.0.0.0 is a link-local address"),
        ("file:///etc/passwd", "is not a place to pull from"),
        ("http://user:hidden@127.0.0.1/x", "is not a place to pull from"),
        ("http://[broken/x", "redirected to something that is no address"),
        ("LOOP", "is redirected more than 5 times"),
    ],
)
def test_a_hub_may_not_redirect_anywhere(hf: FakeHuggingFace, location: str, message: str) -> None:
    def send_away(asked: Asked, reply: Reply) -> Reply:
        if "/resolve/" not in asked.path:
            return reply
        return Reply(302, b"", {"Location": asked.path if location == "LOOP" else location})

    hf.spoil = send_away
    with pytest.raises(Refused, match=message) as caught:
        open_source("hf://org/m").read_into(WEIGHTS, 0, memoryview(bytearray(10)))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda reply: Reply(503),
        lambda reply: Reply(429, b"", {"Retry-After": "1"}),
        lambda reply: Reply(429, b"", {"RateLimit": '"resolvers";r=0;t=1'}),
        lambda reply: replace(reply, headers={**reply.headers, "Content-Length": "999999999"}),
    ],
)
def test_a_hub_that_falters_is_asked_again(
    hub: FakeHuggingFace | FakeModelScope, uri: str, spoil: Callable[[Reply], Reply], tmp_path: Path
) -> None:
    left = [3]

    def falter(asked: Asked, reply: Reply) -> Reply:
        if left[0] and not asked.path.endswith("recursive=true"):
            left[0] -= 1
            spoilt = spoil(reply)
            return replace(spoilt, headers={**spoilt.headers, "Connection": "close"})
        return reply

    hub.spoil = falter
    engine.pull(uri, tmp_path / "t", Silent())
    assert contents(tmp_path / "t") == FILES


def test_a_server_without_ranges_is_named(hf: FakeHuggingFace, tmp_path: Path) -> None:
    hf.serves_ranges = False
    with pytest.raises(StoreFailed, match=rf"the server of hf://org/m/{WEIGHTS} does not serve ranges"):
        engine.pull("hf://org/m", tmp_path / "t", Silent())
    assert "config.json" in contents(tmp_path / "t"), "a small file is one range"


def test_nobody_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Interrupted, match="the connection for hf://org/m failed: NewConnectionError; check the network"):
        list(open_source("hf://org/m").list_files())


@pytest.mark.parametrize("endpoint", ["ftp://x", "x", "https://user:hidden@host", "https://host?token=hidden"])
def test_an_endpoint_that_is_none_is_named(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(LongshoreError, match="HF_ENDPOINT is not a hub's address") as caught:
        open_source("hf://org/m")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "rest",
    ["m", "org/m/x", "org/", "/m", "org/m:", "org/m@", "org/m:../x", "org/m:-x", "org/m?x=y", "or g/m", "org/m:a b", "a@b/m"],
)
def test_addresses_that_name_no_model_are_refused(rest: str) -> None:
    with pytest.raises(LongshoreError, match="is not the address of a model; write hf://OWNER/MODEL"):
        parse_address(f"hf://{rest}", "hf")


def test_the_token_of_hf_auth_login_is_found(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    assert find_token({"HF_HOME": str(tmp_path)}) == "from-file"
    assert find_token({"HF_HOME": str(tmp_path), "HF_TOKEN": "from-environment"}) == "from-environment"
    assert find_token({"HOME": str(tmp_path)}) is None
