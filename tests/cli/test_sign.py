from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from longshore_runtime.signatures import FOLDER
from support.command import CommandLine
from support.documents import examples
from support.keys import Pair, make_certified, make_pair
from support.models import flip_byte, make_model

PAGE = Path(__file__).parents[2] / "docs/signing.md"


@pytest.fixture
def key(tmp_path: Path) -> Pair:
    return make_pair(tmp_path / "keys", "ours")


def test_sign_verify_and_pull(longshore: CommandLine, model: Path, key: Pair, tmp_path: Path) -> None:
    assert longshore("push", model, "m:1").code == 0
    refused = longshore("pull", "m:1", tmp_path / "t", "--public-key", key.public)
    assert "m:1 is not signed; sign it: longshore sign m:1 --key KEY" in refused.error
    assert not (tmp_path / "t").exists()
    assert "signed: key-" in longshore("sign", "m:1", "--key", key.private).out
    again = longshore("sign", "m:1", "--key", key.private, "--json").json
    assert (again["created"], again["signature"][:4]) == (False, "key-")
    assert ", signed" in longshore("pull", "m:1", tmp_path / "t", "--public-key", key.public).out
    assert longshore("verify", "m:1", "--public-key", key.public).out.endswith(
        "as it was pushed, and signed by whom you trust\n"
    )
    found = longshore("verify", tmp_path / "t", "--public-key", key.public, "--json").json
    assert (found["ok"], found["signed"], found["checked"]) == (True, True, "bytes")
    flip_byte(tmp_path / "t/config.json")
    assert "config.json is changed" in longshore("verify", tmp_path / "t", "--public-key", key.public).error
    other = make_pair(tmp_path / "keys", "theirs")
    assert "no signature of m:1 is by whom you trust" in longshore("verify", "m:1", "--public-key", other.public).error


def test_a_push_signs_and_a_bad_key_stops_it_before_it_starts(longshore: CommandLine, model: Path, key: Pair) -> None:
    assert "cannot sign" in longshore("push", model, "m:1", "--sign", model / "config.json").error
    assert not longshore.registry.exists()
    done = longshore("push", model, "m:1", "--sign", key.private)
    assert "m:1 is signed: key-" in done.out
    assert longshore("push", model, "m:1", "--sign", key.private, "--json").json["signature"].startswith("key-")


def test_a_push_signs_with_a_certificate_and_the_public_command_verifies_it(
    longshore: CommandLine, model: Path, tmp_path: Path
) -> None:
    ours, theirs = (make_certified(tmp_path / "keys", name) for name in ("ours", "theirs"))
    certified = ("--certificate", ours.certificate, "--certificate-chain", ours.root)
    for wrong, why in (
        (("--certificate", theirs.certificate), "does not match"),
        (("--certificate", ours.certificate, "--certificate-chain", theirs.root), "nobody who trusts"),
        (("--certificate", tmp_path / "absent"), "absent is not a file"),
    ):
        assert why in longshore("push", model, "m:1", "--alias", "prod", "--sign", ours.private, *wrong).error
    assert longshore("push", model, "m:1", *certified).code == 2
    assert not longshore.registry.exists()
    done = longshore("push", model, "m:1", "--alias", "prod", "--sign", ours.private, *certified)
    assert "m:1 is signed: certificate-" in done.out
    assert [event["verb"] for event in longshore("log", "m", "--json").json] == ["alias", "sign", "push"]
    again = longshore("push", model, "m:1", "--sign", ours.private, *certified, "--json").json
    tree = tmp_path / "t"
    assert longshore("pull", "m@prod", tree, "--certificate-chain", ours.root).code == 0
    (bundle,) = (tree / FOLDER).iterdir()
    assert bundle.name == again["signature"]
    command = [sys.executable, "-m", "model_signing", "verify", "certificate", "--signature", bundle]
    for root, outcome in ((ours.root, "Verification succeeded"), (theirs.root, "Verification failed")):
        options = ("--certificate_chain", root, tree)
        public = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert outcome in public.stdout + public.stderr


def test_options_that_contradict_each_other_are_usage_errors(longshore: CommandLine, model: Path, key: Pair) -> None:
    assert longshore("sign", "m:1", "--key", key.private, "--certificate-chain", key.public).code == 2
    assert longshore("verify", "m:1", "--public-key", key.public, "--certificate-chain", key.public).code == 2
    assert "is no version, so nobody can have signed it" in longshore("verify", model, "--public-key", key.public).error


def test_sizes_alone_find_what_is_cut_and_say_that_they_are_sizes(longshore: CommandLine, model: Path) -> None:
    longshore("push", model, "m:1")
    assert longshore("verify", "m:1", "--fast").out.endswith("names and sizes are as they were pushed; no byte was read\n")
    (config,) = longshore.registry.glob("m/trees/*/config.json")
    flip_byte(config)
    assert longshore("verify", "m:1", "--fast").code == 0
    assert longshore("verify", "m:1").code == 1
    config.write_text("{}")
    assert "config.json is changed (2 bytes" in longshore("verify", "m:1", "--fast").error


def test_the_pages_commands_print_what_it_shows(longshore: CommandLine) -> None:
    folder = longshore.home / "work"
    make_model(folder / "model")
    pair = make_pair(folder, "release")
    assert pair.public.name == "release.pub"
    found = list(examples(PAGE))
    assert len(found) >= 4
    for example in found:
        example.check(longshore, folder)
