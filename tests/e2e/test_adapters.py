"""Real LoRA adapters through a real registry into a real engine: they and their base answer, each under its name, and differ.

One comes while the engine runs, is replaced, and goes.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import openai
import pytest

from support.command import CommandLine
from support.models import flip_byte, make_adapter
from support.streams import ask


@pytest.mark.engine
@pytest.mark.timeout(900)
def test_an_adapter_and_its_base_answer_each_under_its_name(longshore: CommandLine, smollm2: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", smollm2, rank=12, strength=0.2)
    other = make_adapter(tmp_path / "other", smollm2, rank=4, seed=1, strength=0.2)
    later = [make_adapter(tmp_path / f"later-{seed}", smollm2, seed=seed, strength=0.2) for seed in (2, 3)]
    appearing = tmp_path / "appearing"
    for arguments in (
        ("push", smollm2, "smollm2:1", "--alias", "prod"),
        ("push", adapter, "team/pirate:1", "--base", "smollm2@prod"),
        ("push", other, "poet:1", "--base", "smollm2"),
        ("push", later[0], "team/late:1", "--base", "smollm2"),
        ("push", later[1], "team/late:2", "--base", "smollm2"),
    ):
        assert longshore(*arguments, timeout=120).code == 0
    command = [sys.executable, "-m", "longshore", "run", "team/pirate:1", "--adapter", "poet:1"]
    command += ["--adapters-dir", str(appearing)]
    process = subprocess.Popen(
        command, env=longshore.environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        address = re.search(r"is served at (\S+) as 'smollm2', 'team/pirate', 'poet'; Ctrl-C stops it", line)
        assert address, line or process.communicate()[1]
        client = openai.OpenAI(base_url=address[1], api_key="none")
        names = ["smollm2", "team/pirate", "poet"]
        assert sorted(model.id for model in client.models.list()) == sorted(names)
        answers = {
            name: client.completions.create(model=name, prompt="The capital of France is", max_tokens=5, temperature=0)
            for name in names
        }
        assert "Paris" in answers["smollm2"].choices[0].text
        assert len({answer.choices[0].text for answer in answers.values()}) == 3
        one_comes_is_replaced_and_goes(longshore, client, appearing)
    finally:
        process.terminate()
        process.communicate(timeout=120)


def one_comes_is_replaced_and_goes(longshore: CommandLine, client: openai.OpenAI, appearing: Path) -> None:
    """Nobody but the launcher can have it so, and nothing that is not verified is ever loaded."""
    base = {"smollm2", "team/pirate", "poet"}
    body = {"lora_name": "mine", "lora_path": str(appearing)}
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters"):
        assert asyncio.run(ask(client.base_url.port or 0, path, body)).status == 404
    said = []
    for version in ("1", "2"):
        tree = longshore("show", f"team/late:{version}", "--json").json["uri"].removeprefix("file://")
        shutil.rmtree(appearing / "team_late", ignore_errors=True)
        damaged = shutil.copytree(tree, appearing.parent / f"damaged-{version}")
        flip_byte(damaged / "adapter_model.safetensors")
        appearing.mkdir(exist_ok=True)
        shutil.copytree(damaged, appearing / "damaged", dirs_exist_ok=True)
        shutil.copytree(tree, appearing / "team_late")
        until(client, base | {"team/late"})
        said.append(say_until_new(client, said))
    assert len(set(said)) == 2
    shutil.rmtree(appearing / "team_late")
    until(client, base)
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="team/late", prompt="Hi", max_tokens=1)


def until(client: openai.OpenAI, names: set[str]) -> None:
    """Wait until just these are served."""
    end = time.monotonic() + 120
    while (found := {model.id for model in client.models.list()}) != names:
        assert time.monotonic() < end, found
        time.sleep(0.5)


def say_until_new(client: openai.OpenAI, said: list[str]) -> str:
    """What the adapter says once that is something that it has not said before."""
    end = time.monotonic() + 120
    while True:
        try:
            answer = client.completions.create(
                model="team/late", prompt="The capital of France is", max_tokens=8, temperature=0
            )
        except openai.NotFoundError:  # between the one and the other
            answer = None
        if answer is not None and answer.choices[0].text not in said:
            return answer.choices[0].text
        assert time.monotonic() < end, said
        time.sleep(0.5)
