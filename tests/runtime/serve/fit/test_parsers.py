from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from longshore_runtime.serve.fit.arguments import parser_arguments
from longshore_runtime.serve.fit.parsers import REASONING, TOOLS, Parsers, choose_parsers

QWEN = "{%- if tools %}{{ '<tool_call>' }}{%- endif %}"


@pytest.mark.parametrize(
    ("model_type", "template", "tools", "reasoning"),
    [
        ("llama", "", None, None),
        ("llama", "{{ messages }}", None, None),
        ("qwen2", QWEN, "hermes", None),
        ("qwen3", QWEN + "{%- if enable_thinking is defined %}", "hermes", "qwen3"),
        ("qwen3_moe", QWEN + "<function=example>", "qwen3_coder", None),
        ("llama", "{%- if tools is not none %}Environment: ipython", "llama3_json", None),
        ("mistral", "{%- if tools %}[AVAILABLE_TOOLS] [TOOL_CALLS]", "mistral", None),
        ("gpt_oss", "tools <|channel|>analysis", "openai", "openai_gptoss"),
        ("qwen2", "{{ '<｜Assistant｜><think>\\n' }}", None, "deepseek_r1"),
        ("granite", "{% if tools %}<|tool_call|>", "granite", None),
        ("smollm", "{% if messages %}<|im_start|>", None, None),
    ],
)
def test_the_template_tells(model_type: str, template: str, tools: str | None, reasoning: str | None) -> None:
    assert choose_parsers(model_type, template) == Parsers(tools, reasoning)


def test_tools_need_to_be_allowed() -> None:
    assert parser_arguments(Parsers("hermes", "qwen3")) == [
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        *("--reasoning-parser", "qwen3"),
    ]
    assert parser_arguments(Parsers()) == []


@pytest.mark.parametrize(("package", "rules"), [("tool_parsers", TOOLS), ("reasoning", REASONING)])
def test_the_installed_engine_knows_the_names(package: str, rules: tuple[tuple[str, str, str], ...]) -> None:
    """Read from its registration, without the half minute that importing it takes."""
    found = importlib.util.find_spec("vllm")
    if found is None or not found.origin:
        pytest.skip("vLLM is not installed")
    registered = re.findall(
        r'^    "([^"]+)": \(', (Path(found.origin).parent / package / "__init__.py").read_text(), re.MULTILINE
    )
    assert {name for _, _, name in rules} <= set(registered)
