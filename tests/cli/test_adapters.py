"""Adapters as a user pushes, shows, pulls, renders and copies them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from support.command import CommandLine
from support.models import make_adapter


@pytest.fixture
def pushed(longshore: CommandLine, model: Path, tmp_path: Path) -> CommandLine:
    """A registry that holds m:1 and its adapters team/sql:1 and chat:1."""
    (tmp_path / "serve.yaml").write_text("base: m@prod\narguments: [--seed=1]\ngpus: 0\n")
    adapter = make_adapter(tmp_path / "adapter", model)
    other = make_adapter(tmp_path / "other", model, seed=1)
    for arguments in (
        ("push", model, "m:1", "--alias", "prod"),
        ("push", adapter, "team/sql:1", "--serve", tmp_path / "serve.yaml"),
        ("push", other, "chat:1", "--base", "m", "--alias", "prod"),
    ):
        done = longshore(*arguments)
        assert done.code == 0, done.err
    return longshore


def test_an_adapter_is_shown_and_pulled_with_its_base(pushed: CommandLine, tmp_path: Path) -> None:
    base = pushed("show", "m:1", "--json").json["digest"]
    assert f"base m:1 {base}" in " ".join(pushed("show", "team/sql:1").out.split())
    assert pushed("show", "team/sql:1", "--json").json["manifest"]["base"]["version"] == "1"
    into = tmp_path / "pulled"
    lines = pushed("pull", "team/sql:1", into).out.splitlines()
    assert [line.split()[0] for line in lines] == [str(into), str(into / ".longshore/adapters/team_sql")]
    assert "signed" not in "".join(lines)
    again = pushed("pull", "team/sql:1", into, "--json").json
    assert (again["digest"], again["fetched"], [found["fetched"] for found in again["adapters"]]) == (base, 0, [0])
    for folder in (into, into / ".longshore/adapters/team_sql"):
        assert pushed("verify", folder).code == 0
    (into / ".longshore/adapters/team_sql/adapter_config.json").write_text("{}")
    assert pushed("verify", into / ".longshore/adapters/team_sql").code == 1


def test_an_adapter_and_a_base_with_adapters_are_rendered(pushed: CommandLine) -> None:
    *_, alone = yaml.safe_load_all(pushed("render", "team/sql:1").out)
    *_, together = yaml.safe_load_all(pushed("render", "m@prod", "--adapter", "chat@prod", "--adapter", "team/sql:1").out)
    assert "nvidia.com/gpu" not in alone["spec"]["predictor"]["model"]["resources"]["requests"], "gpus: 0, says the adapter"
    places = [found["mountPath"].rpartition("/mnt/models")[2] for found in together["spec"]["predictor"]["storageUris"]]
    assert places == ["", "/.longshore/adapters/chat", "/.longshore/adapters/team_sql"]
    assert together["metadata"]["name"] == "m-1"
    assert "reading the headers of team/sql:1 on m" in pushed("fit", "team/sql:1", "--gpu", "h100").err
    refused = pushed("render", "m:1", "--adapter", "m:1")
    assert "m:1 is no adapter; push it as one: --base m:1" in refused.error


def test_refusals_are_one_line(pushed: CommandLine, tmp_path: Path) -> None:
    for arguments, message in (
        (("push", tmp_path / "other", "new"), "is an adapter, and nothing says which version it is for"),
        (("push", tmp_path / "other", "new", "--base", "absent:1"), "absent has no version 1"),
        (("push", tmp_path / "other", "new", "--base", "chat:1"), "chat:1 is itself an adapter of m:1"),
        (("push", tmp_path / "other", "m", "--base", "m:1"), "both answer by their model's name; give it a name of its own"),
        (("run", tmp_path / "other"), "holds an adapter, which serves nothing without its base"),
        (("run", tmp_path / "other", "--adapter", "chat:1"), "is no version, so it has no adapters"),
    ):
        done = pushed(*arguments)
        assert (done.code, message in done.error) == (1, True), done.err
