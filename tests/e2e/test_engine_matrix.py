"""What an engine can be asked for, on a real vLLM: tool calls, guesses ahead, embeddings. A start serves several questions."""

from __future__ import annotations

import json
import math
import re
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest

from support.command import CommandLine
from support.models import make_embedder
from support.serving import serving

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

TEMPLATE = """\
{% if tools %}<|im_start|>system
You may call functions: {{ tools | tojson }}. Write <tool_call>{"name": …, "arguments": …}</tool_call><|im_end|>
{% endif %}{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

PROMPTS = (
    "The capital of France is",
    "one two three four five one two three four five one two three",
    "def add(a, b):\n    return a + b\n\ndef add(a, b):\n",
)

CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "look_up", "description": "Look a city up.", "parameters": CITY}}
CALL = '<tool_call>\n{"name": "look_up", "arguments": {"city": "Paris"}}\n</tool_call>'
QUESTION: Any = [{"role": "user", "content": "Where is the Louvre?"}]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> CommandLine:
    """A registry of the real model: as it is, with a template that teaches tool calls, and with two ways to guess."""
    home = tmp_path_factory.mktemp("matrix")
    command = CommandLine(home)
    taught = shutil.copytree(smollm2, home / "taught")
    settings = json.loads((taught / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (taught / "tokenizer_config.json").write_text(json.dumps(settings))
    (taught / "chat_template.jinja").write_text(TEMPLATE)
    (home / "ngram.yaml").write_text("{speculative: {method: ngram, tokens: 4}, arguments: [--max-model-len=2048]}")
    (home / "draft.yaml").write_text("speculative: {method: draft, model: small@prod, tokens: 3}")
    for arguments in (
        ("push", taught, "m:1"),
        ("push", smollm2, "small:1", "--alias", "prod"),
        ("push", smollm2, "m:ngram", "--serve", home / "ngram.yaml"),
        ("push", smollm2, "m:draft", "--serve", home / "draft.yaml"),
    ):
        done = command(*arguments, timeout=120)
        assert done.code == 0, done.err
    return command


def answers(client: openai.OpenAI) -> list[str]:
    """What the model says without chance."""
    found = (client.completions.create(model="m", prompt=prompt, max_tokens=24, temperature=0) for prompt in PROMPTS)
    return [answer.choices[0].text for answer in found]


def count(client: openai.OpenAI, what: str) -> float:
    """The sum of one of the engine's counters."""
    with urllib.request.urlopen(str(client.base_url).replace("/v1/", "/metrics"), timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"vllm:{what}_total\{{", line))


@pytest.fixture(scope="module")
def greedy(registry: CommandLine) -> list[str]:
    """The answers of an engine that does not guess. On its way it is asked for tool calls, as the template has taught it."""
    with serving(registry, "m:1", "--", "--max-model-len=2048") as client:
        found = answers(client)
        assert count(client, "spec_decode_num_drafts") == 0
        tools_are_called(client)
        a_call_is_streamed(client)
    return found


def tools_are_called(client: openai.OpenAI) -> None:
    """The parser that the launcher has chosen by the template reads what the model writes: here, what it is made to write."""
    whole = client.chat.completions.create(
        model="m", messages=QUESTION, tools=[TOOL], extra_body={"structured_outputs": {"choice": [CALL]}}
    ).choices[0]
    assert (whole.finish_reason, whole.message.content or "") == ("tool_calls", "")
    assert whole.message.tool_calls
    called = whole.message.tool_calls[0].function  # type: ignore[union-attr]
    assert (called.name, json.loads(called.arguments)) == ("look_up", {"city": "Paris"})
    plain = client.chat.completions.create(model="m", messages=QUESTION, max_tokens=20)
    assert plain.choices[0].message.tool_calls in (None, [])


def a_call_is_streamed(client: openai.OpenAI) -> None:
    pieces = client.chat.completions.create(
        model="m", messages=QUESTION, tools=[TOOL], stream=True, extra_body={"structured_outputs": {"choice": [CALL]}}
    )
    names, arguments = [], ""
    for piece in pieces:
        for call in piece.choices[0].delta.tool_calls or []:
            names += [call.function.name] if call.function and call.function.name else []
            arguments += (call.function.arguments or "") if call.function else ""
    assert (names, json.loads(arguments)) == (["look_up"], {"city": "Paris"})


def test_guesses_by_ngrams_change_no_answer(registry: CommandLine, greedy: list[str]) -> None:
    with serving(registry, "m:ngram") as client:
        assert answers(client) == greedy
        assert count(client, "spec_decode_num_accepted_tokens") > 0


def test_guesses_of_a_second_pulled_model_change_no_answer(registry: CommandLine, greedy: list[str]) -> None:
    with serving(registry, "m:draft", "--", "--max-model-len=2048") as client:
        assert [model.id for model in client.models.list()] == ["m"]
        assert answers(client) == greedy
        drafted, accepted = (count(client, f"spec_decode_num_{name}_tokens") for name in ("draft", "accepted"))
        assert accepted > drafted / 2, "the same model would say the same"


def test_a_bert_embeds(longshore: CommandLine, tmp_path: Path) -> None:
    model = make_embedder(tmp_path / "bert", hidden=64)
    with serving(longshore, str(model)) as client:
        found = client.embeddings.create(model="bert", input=["w1 w2 w3", "w4", "w1 w2 w3"], encoding_format="float")
        one, other, again = (item.embedding for item in found.data)
    assert [len(embedding) for embedding in (one, other, again)] == [64] * 3
    assert math.isclose(sum(number * number for number in one), 1, rel_tol=1e-2)
    assert math.dist(one, again) < 1e-2 < math.dist(one, other)
