"""The documents say what is: the README's commands run, every command and path that is named exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from longshore import Registry
from longshore.cli import COMMANDS
from support.command import CommandLine
from support.documents import Example, blocks, examples, matches
from support.models import make_adapter, make_model

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]


@pytest.mark.engine
@pytest.mark.timeout(400)
def test_the_readmes_commands_print_what_it_shows(longshore: CommandLine, smollm2: Path) -> None:
    folder = longshore.home / "work"
    folder.mkdir()
    (folder / "smollm2").symlink_to(smollm2)
    (folder / "serve.yaml").write_text(next(blocks(ROOT / "README.md", "yaml")))
    found = list(examples(ROOT / "README.md"))
    assert len(found) >= 9
    for example in found:
        example.check(longshore, folder)


def test_the_registrys_commands_print_what_their_page_shows(longshore: CommandLine, tmp_path: Path) -> None:
    for seed, name in enumerate(("llama", "llama-tuned")):
        make_model(tmp_path / name, seed=seed)
    found = list(examples(ROOT / "docs/registry.md"))
    assert len(found) >= 14
    for example in found:
        command = example.command.replace("file:///srv/models", (tmp_path / "other").as_uri())
        Example(command, example.shown).check(longshore, tmp_path)


def test_the_initializers_commands_print_what_the_caches_page_shows(
    longshore: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = Registry((tmp_path / "models").as_uri()).push(make_model(tmp_path / "m"), "m:1").version.uri
    monkeypatch.setenv("LONGSHORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LONGSHORE_CACHE_SIZE", "1GB")
    found = list(examples(ROOT / "docs/cache.md"))
    assert len(found) >= 5
    for example in found:
        command = example.command.replace("file:///models/m/trees/…", uri)
        shown = tuple(line.replace("file:///models", (tmp_path / "models").as_uri()) for line in example.shown)
        Example(command, shown).check(longshore, tmp_path)


def test_the_adapters_commands_print_what_their_page_shows(longshore: CommandLine, tmp_path: Path) -> None:
    base = make_model(tmp_path / "llama")
    for seed, name in enumerate(("llama-sql", "llama-chat")):
        make_adapter(tmp_path / name, base, seed=seed)
    found = list(examples(ROOT / "docs/adapters.md"))
    assert len(found) == 11
    for example in found:
        command = example.command.replace("file:///srv/models", (tmp_path / "other").as_uri())
        Example(command, example.shown).check(longshore, tmp_path)


def test_the_serving_pages_commands_print_what_it_shows(longshore: CommandLine, tmp_path: Path) -> None:
    for seed, name in enumerate(("llama", "llama-small")):
        make_model(tmp_path / name, seed=seed)
    wish = re.search(r"`(speculative: .*)` in `(.*)`", (ROOT / "docs/serving.md").read_text())
    assert wish
    (tmp_path / wish[2]).write_text(wish[1])
    found = list(examples(ROOT / "docs/serving.md"))
    assert len(found) == 5
    for example in found:
        example.check(longshore, tmp_path)


def test_the_readmes_python_runs(tmp_path: Path, smollm2: Path) -> None:
    (tmp_path / "smollm2").symlink_to(smollm2)
    (code,) = blocks(ROOT / "README.md", "python")
    code = code.replace("file:///tmp/models", (tmp_path / "models").as_uri())
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"file://.*/smollm2/trees/[0-9a-f]{64}\n", done.stdout)


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert [name for name in COMMANDS if f"longshore {name}" not in text] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_exists(document: Path) -> None:
    text = document.read_text()
    for link in re.findall(r"\]\((?!http)([\w./-]+)\)", text):
        assert (document.parent / link).exists(), link
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets
    for name in re.findall(r"`longshore ([a-z]+)", text):
        assert name in COMMANDS, name


def test_examples_are_read_as_they_are_written(tmp_path: Path) -> None:
    document = tmp_path / "d.md"
    document.write_text("```console\n$ one x\nshown …\n…\n$ two\n```\n```sh\n$ three\n```\n")
    assert list(examples(document)) == [Example("one x", ("shown …",)), Example("two", ())]
    assert matches("a … c", "a   b  c")
    assert not matches("a … c", "a b d")
