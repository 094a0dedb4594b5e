from __future__ import annotations

import json

import pytest

from longshore_runtime.serve.logs import JsonLog, TextLog, read_words


def test_both_kinds_of_log_can_be_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    for log in (TextLog(), JsonLog()):
        log.say("loading weights")
        log.fail("no memory")
        engine = log.engine("vllm")
        engine.write("INFO something\n")
        engine.write('{"time": "2026", "source": "access", "status": 200}\n')
        engine.flush()
    printed = capsys.readouterr()
    assert printed.err == "launcher: loading weights\nerror: no memory\n"
    plain, access, *lines = printed.out.splitlines()
    assert (plain, access, lines[-1]) == ("INFO something", lines[-1], access)
    said = [json.loads(line) for line in lines]
    assert [(line["source"], line.get("level"), line.get("message")) for line in said] == [
        ("launcher", None, "loading weights"),
        ("launcher", "error", "no memory"),
        ("vllm", None, "INFO something"),
        ("access", None, None),
    ]
    assert [read_words(line) for line in lines] == ["loading weights", "no memory", None, None]
    assert read_words("launcher: ready") == "ready"
    assert read_words('{"time": broken') is None


def test_a_request_that_is_logged_in_the_middle_of_the_engines_line_is_a_record_still(
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine, access = JsonLog().engine("llamacpp"), '{"time": "2026", "source": "access", "status": 200}'
    for line in (f"0.01.129 {access}\n", "srv: done\n", 'a prompt: {"time": 5}\n', '{"time": "2026", "source": "acc\n'):
        engine.write(line)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == access
    said = [json.loads(line) for line in (lines[0], *lines[2:])]
    assert [line["message"] for line in said] == [
        "0.01.129",
        "srv: done",
        'a prompt: {"time": 5}',
        '{"time": "2026", "source": "acc',
    ]
    assert {line["source"] for line in said} == {"llamacpp"}
