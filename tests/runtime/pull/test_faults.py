"""Pulls through a server that misbehaves at random: in the end every byte is right, or one line says why not.

LONGSHORE_FAULTS is how many faults are to be met, 120 if it is not set; the full run has 10000.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from longshore_runtime.errors import LongshoreError
from longshore_runtime.progress import Silent
from longshore_runtime.pull import engine
from support.hubs import Asked, FakeHuggingFace, FakeModelScope, Reply, model_of, sha256
from support.sites import FakeSite, run_site, run_tls_site

FAULTS = int(os.environ.get("LONGSHORE_FAULTS", "120"))
CHUNK = 8 * 1024 * 1024
NUMBERS = random.Random(5)
FILES = {
    "config.json": b"{}",
    "tokenizer.json": NUMBERS.randbytes(50_000),
    "model-1.safetensors": NUMBERS.randbytes(2 * CHUNK + 5),
    "model-2.safetensors": NUMBERS.randbytes(CHUNK),
}
KINDS = {
    "error": lambda reply: Reply(NUMBERS.choice([500, 502, 503, 504])),
    "too busy": lambda reply: Reply(429, b"", {"Retry-After": "0"}),
    "refused": lambda reply: Reply(NUMBERS.choice([400, 401, 403, 404, 410, 416])),
    "flipped": lambda reply: replace(reply, body=flip(reply.body)),
    "cut": lambda reply: closing(replace(reply, body=reply.body[: len(reply.body) // 2]), len(reply.body)),
    "cut and shortened": lambda reply: replace(reply, body=reply.body[: len(reply.body) // 2]),
    "longer": lambda reply: replace(reply, body=reply.body + b"more"),
    "empty": lambda reply: replace(reply, body=b""),
    "another range": lambda reply: replace(reply, headers={**reply.headers, "Content-Range": "bytes 1-2/3"}),
    "no range": lambda reply: replace(reply, headers={}),
    "whole instead": lambda reply: replace(reply, status=200),
    "compressed": lambda reply: replace(reply, headers={**reply.headers, "Content-Encoding": "gzip"}),
    "sent away": lambda reply: Reply(302, b"", {"Location": "http://169.254.169.254/"}),
    "gone": lambda reply: None,
}


def flip(body: bytes) -> bytes:
    place = NUMBERS.randrange(len(body)) if body else 0
    return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :] if body else b"x"


def closing(reply: Reply, length: int) -> Reply:
    return replace(reply, headers={**reply.headers, "Content-Length": str(length), "Connection": "close"})


class Faults:
    """Spoils one reply in `every`, and counts what it did."""

    def __init__(self, every: int) -> None:
        self.every, self.met = every, Counter[str]()

    def __call__(self, asked: Asked, reply: Reply) -> Reply:
        if NUMBERS.randrange(self.every):
            return reply
        kind = NUMBERS.choice(list(KINDS))
        self.met[kind] += 1
        spoilt = KINDS[kind](reply)
        if spoilt is None:
            raise ConnectionAbortedError
        return spoilt


@pytest.fixture(params=["hf", "modelscope", "http", "https"])
def source(
    request: pytest.FixtureRequest,
    huggingface: FakeHuggingFace,
    modelscope: FakeModelScope,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[str, FakeHuggingFace | FakeModelScope | FakeSite, dict[str, bytes]]]:
    """An address, its server, and what is there."""
    huggingface.models["org/m"] = modelscope.models["org/m"] = model_of(FILES)
    if request.param in ("hf", "modelscope"):
        yield f"{request.param}://org/m", huggingface if request.param == "hf" else modelscope, FILES
        return
    name = "model-1.safetensors"
    with ExitStack() as running:
        if request.param == "https":
            site, authority = running.enter_context(run_tls_site(tmp_path))
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
        else:
            site = running.enter_context(run_site())
        site.files[name] = FILES[name]
        yield f"{site.endpoint}/{name}#sha256={sha256(FILES[name])}", site, {name: FILES[name]}


@pytest.mark.timeout(300 + FAULTS)
@pytest.mark.parametrize("every", [3, 6])
def test_no_fault_leaves_a_wrong_byte(
    source: tuple[str, FakeHuggingFace | FakeModelScope | FakeSite, dict[str, bytes]],
    every: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri, server, files = source
    monkeypatch.setattr(time, "sleep", lambda _: None)
    faults, outcomes, number = Faults(every), Counter[str](), 0
    while sum(faults.met.values()) < FAULTS // 6:
        number += 1
        target = tmp_path / str(number)
        server.spoil = faults
        try:
            engine.pull(uri, target, Silent())
            outcomes["done"] += 1
        except LongshoreError:
            outcomes["refused"] += 1
        found = {path.name: path.read_bytes() for path in target.glob("*") if path.is_file()}
        assert found.items() <= files.items(), f"wrong bytes in {target}"
        server.spoil = lambda _, reply: reply
        verdict = engine.pull(uri, target, Silent())
        assert {path.name: path.read_bytes() for path in target.glob("*") if path.is_file()} == files
        outcomes["resumed"] += verdict.fetched < verdict.size
        shutil.rmtree(target)
    assert outcomes["done"] + outcomes["refused"] == number
    assert outcomes["resumed"], "what was right before is not fetched again"
    assert len(faults.met) >= min(len(KINDS), FAULTS // 20)
