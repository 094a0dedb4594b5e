"""A real LoRA adapter through a real registry into a real engine: it and its base answer, each under its name, and differ."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from support.command import CommandLine
from support.models import make_adapter


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_an_adapter_and_its_base_answer_each_under_its_name(longshore: CommandLine, smollm2: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", smollm2, rank=12, strength=0.2)
    other = make_adapter(tmp_path / "other", smollm2, rank=4, seed=1, strength=0.2)
    for arguments in (
        ("push", smollm2, "smollm2:1", "--alias", "prod"),
        ("push", adapter, "team/pirate:1", "--base", "smollm2@prod"),
        ("push", other, "poet:1", "--base", "smollm2"),
    ):
        assert longshore(*arguments, timeout=120).code == 0
    command = [sys.executable, "-m", "longshore", "run", "team/pirate:1", "--adapter", "poet:1"]
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
    finally:
        process.terminate()
        process.communicate(timeout=120)
