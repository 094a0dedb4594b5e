from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from longshore_runtime.serve.health import (
    Condition,
    HealthServer,
    judge_liveness,
    judge_readiness,
    judge_startup,
)
from longshore_runtime.serve.state import AdapterState, Snapshot

STARTING = Condition(Snapshot("loading", "loading weights: 1/3 shards", 10, 30), begun=False, elapsed=12.4, deadline=913.0)
READY = Condition(Snapshot("ready"), begun=True, elapsed=100.0, deadline=913.0, grace=120.0)


@pytest.mark.parametrize(
    ("condition", "started", "ready", "alive", "reason"),
    [
        (STARTING, False, False, True, "loading weights: 1/3 shards: 10 of 30 bytes, 12 of 913 s"),
        (replace(STARTING, now=Snapshot("failed", error="no memory")), False, False, True, "no memory"),
        (READY, True, True, True, "started"),
        (replace(READY, now=Snapshot("asleep")), True, False, True, "started"),
        (replace(READY, now=Snapshot("waking")), True, False, True, "started"),
        (replace(READY, responsive=False), True, False, True, "started"),
        (replace(READY, silence=29), True, True, True, "started"),
        (replace(READY, silence=31), True, False, True, "started"),
        (replace(READY, silence=121), True, False, False, "started"),
        (replace(READY, now=Snapshot("draining")), True, False, True, "started"),
        # A start may be silent for as long as its deadline says.
        (replace(STARTING, silence=500), False, False, True, "loading weights: 1/3 shards: 10 of 30 bytes, 12 of 913 s"),
    ],
)
def test_each_probe_has_its_own_answer(condition: Condition, started: bool, ready: bool, alive: bool, reason: str) -> None:
    assert judge_startup(condition) == (started, reason)
    assert judge_readiness(condition).well is ready
    assert judge_liveness(condition).well is alive


def test_reasons_say_what_is_wrong() -> None:
    assert judge_readiness(replace(READY, silence=31)).reason == "the engine has made no progress for 31 s"
    assert judge_readiness(replace(READY, responsive=False)).reason == "the engine's server does not answer"
    assert judge_readiness(replace(READY, now=Snapshot("asleep"))).reason == "asleep"
    stuck = Snapshot("asleep", "could not be woken: no room")
    assert judge_readiness(replace(READY, now=stuck)).reason == "asleep: could not be woken: no room"
    assert judge_liveness(replace(READY, silence=121)).reason == "the engine has work and has made no progress for 121 s"


class Site:
    condition, running = STARTING, 0

    def read(self) -> tuple[Condition, int]:
        return self.condition, self.running


@pytest.fixture
def site() -> Iterator[tuple[Site, HealthServer]]:
    site = Site()
    server = HealthServer("127.0.0.1", 0, site.read)
    yield site, server
    server.close()


def get(server: HealthServer, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_port_answers_as_it_is(site: tuple[Site, HealthServer]) -> None:
    told, server = site
    assert get(server, "/startupz")[0] == 503
    assert get(server, "/livez") == (200, {"ok": True, "reason": "loading"})
    told.condition, told.running = READY, 3
    assert [get(server, path)[0] for path in ("/startupz", "/readyz", "/livez")] == [200, 200, 200]
    status, state = get(server, "/state?x")
    assert status == 200
    assert (state["phase"], state["running"], state["readyz"]) == ("ready", 3, {"ok": True, "reason": "ready"})
    assert state["adapters"] == []
    told.condition = replace(
        READY, adapters=(AdapterState("sql", "d" * 64, late=True), AdapterState("x", refused="no adapter"))
    )
    assert get(server, "/state")[1]["adapters"] == [
        {"name": "sql", "digest": "d" * 64, "late": True, "refused": None},
        {"name": "x", "digest": None, "late": False, "refused": "no adapter"},
    ]
    assert get(server, "/")[0] == 404
