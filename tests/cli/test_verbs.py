"""`delete`, `undelete`, `gc`, `log`, `copy` as a user runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.command import CommandLine
from support.models import make_model, write_gguf


@pytest.fixture
def pushed(longshore: CommandLine, model: Path) -> CommandLine:
    """A registry that holds m:1, which prod points to."""
    assert longshore("push", model, "m:1", "--alias", "prod").code == 0
    return longshore


def test_a_version_is_deleted_brought_back_and_collected(pushed: CommandLine, tmp_path: Path) -> None:
    pushed("push", make_model(tmp_path / "2", seed=2), "m")
    refused = pushed("delete", "m:1")
    assert refused.code == 1
    assert "m:1 is needed by m@prod; point elsewhere first: longshore alias m prod VERSION" in refused.error
    assert "deleted; longshore undelete m:2 undoes it" in pushed("delete", "m:2", "--reason", "too slow").out
    assert pushed("list", "m", "--deleted").out.split() == ["DELETED", "2"]
    assert "m:2 was deleted by tester at" in pushed("show", "m:2").error
    assert "0 B would be freed" in pushed("gc", "--dry-run").err, "it was deleted less than a day ago"
    assert pushed("undelete", "m:2").out.endswith("is there again\n")
    assert pushed("undelete", "m:2").out.endswith("was not deleted\n")
    assert pushed("undelete", "m:2", "--json").json["restored"] is False
    pushed("delete", "m:2")
    planned = pushed("gc", "m", "--dry-run", "--grace", "0s", "--json").json
    assert (planned["dry_run"], [found["kind"] for found in planned["garbage"]]) == (True, ["tree"])
    assert planned["size"] > 16_000
    done = pushed("gc", "--grace", "0s").out.splitlines()
    assert done[0].split() == ["GARBAGE", "FILES", "SIZE", "WHY"]
    assert done[-1].endswith(" freed")
    assert "have been removed by a gc" in pushed("undelete", "m:2").error
    assert pushed("verify", "m:1").code == 0
    assert "0 B freed" in pushed("gc", "--grace", "0s").err


def test_the_log_says_who_did_what(pushed: CommandLine, tmp_path: Path) -> None:
    pushed("push", make_model(tmp_path / "2", seed=2), "m", "-m", "shorter")
    pushed("alias", "m", "prod", "2", "--reason", "faster")
    pushed("rollback", "m", "prod")
    pushed("delete", "m:2")
    events = pushed("log", "m", "--json").json
    assert [event["verb"] for event in events] == ["delete", "rollback", "alias", "push", "alias", "push"]
    assert {event["by"] for event in events} == {"tester"}
    assert all("@" in event["credentials"] for event in events)
    assert (events[2]["alias"], events[2]["version"], events[2]["note"]) == ("prod", "2", "faster")
    assert len(pushed("log", "m", "-n", "2").out.splitlines()) == 3


@pytest.mark.parametrize("command", ["log", "history"])
def test_a_model_that_is_not_there_is_no_empty_table(longshore: CommandLine, command: str) -> None:
    assert "has no model nope; push it: longshore push DIRECTORY nope" in longshore(command, "nope").error


def test_a_log_that_cannot_be_written_undoes_nothing(pushed: CommandLine) -> None:
    (pushed.registry / "m/events").rename(pushed.registry / "m/old")
    (pushed.registry / "m/events").touch()
    done = pushed("alias", "m", "canary", "1")
    assert (done.code, done.out) == (0, "m@canary -> 1\n")
    assert done.err.startswith("warning: done, but the log of m does not say so: ")


def test_a_time_span_that_is_none_is_a_usage_error(longshore: CommandLine) -> None:
    done = longshore("gc", "--grace", "soon")
    assert done.code == 2
    assert "'soon' is not a time span; write 90s, 30m, 24h or 7d" in done.err


def test_a_version_is_copied_to_another_registry(pushed: CommandLine, tmp_path: Path) -> None:
    target = (tmp_path / "other").as_uri()
    done = pushed("copy", "m@prod", "--to", target, "--alias", "prod")
    assert done.code == 0
    assert done.out.splitlines()[0].endswith("  copied, 87.9 kB of 87.9 kB sent")
    assert done.out.splitlines()[1] == "m@prod -> 1"
    assert pushed("verify", "m@prod", "--registry", target).code == 0
    assert "is there already" in pushed("copy", "m:1", "--to", target).out


def test_the_engine_that_is_shown_is_the_one_that_would_be_started(pushed: CommandLine, tmp_path: Path) -> None:
    assert "  engine   vllm\n" in pushed("show", "m:1").out
    (tmp_path / "gguf").mkdir()
    assert pushed("push", write_gguf(tmp_path / "gguf/m.gguf").parent, "g:1").code == 0
    assert "  engine   llamacpp\n" in pushed("show", "g:1").out


def test_a_listing_shows_the_newest_and_says_so(pushed: CommandLine, tmp_path: Path) -> None:
    pushed("push", make_model(tmp_path / "2", seed=2), "m")
    newest = pushed("list", "m", "--limit", "1")
    assert [line.split()[0] for line in newest.out.splitlines()] == ["VERSION", "2"]
    assert newest.err == "these are the newest 1; --limit 0 lists all\n"
    everything = pushed("list", "m", "--limit", "0")
    assert (len(everything.out.splitlines()), everything.err) == (3, "")
