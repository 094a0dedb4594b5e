"""Which of vLLM's parsers reads a model's tool calls and its reasoning, told by the chat template itself.

The markers are what each parser of vLLM 0.32 looks for in the output (tool_parsers/, reasoning/). A template that teaches
the model to write them is better evidence than the model's name, and a wrong parser is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass

TOOLS: tuple[tuple[str, str, str], ...] = (
    ("gpt_oss", "<|channel|>", "openai"),
    ("deepseek", "<｜tool▁calls▁begin｜>function<｜tool▁sep｜>", "deepseek_v3"),
    ("deepseek", "<｜tool▁call▁begin｜>", "deepseek_v31"),
    ("", "<|tool_calls_section_begin|>", "kimi_k2"),
    ("glm4", "<arg_key>", "glm45"),
    ("", "<function=", "qwen3_coder"),
    ("minimax", "<minimax:tool_call>", "minimax_m2"),
    ("seed_oss", "<seed:tool_call>", "seed_oss"),
    ("", "[TOOL_CALLS]", "mistral"),
    ("granite", "<|tool_call|>", "granite"),
    ("granite", "<tool_call>", "granite4"),
    ("", "<tool_call>", "hermes"),
    ("llama4", "", "llama4_pythonic"),
    ("mllama", "<|python_tag|>", "llama3_json"),
    ("llama", "<|python_tag|>", "llama3_json"),
    ("llama", "Environment: ipython", "llama3_json"),
    ("phi3", "<|tool|>", "phi4_mini_json"),
    ("jamba", "<tool_calls>", "jamba"),
)
"""The beginning of the model type, a marker in the template, the parser; the first that matches."""

REASONING: tuple[tuple[str, str, str], ...] = (
    ("gpt_oss", "<|channel|>", "openai_gptoss"),
    ("qwen3", "enable_thinking", "qwen3"),
    ("qwen3", "<think>\\n' }}", "qwen3"),
    ("deepseek", "thinking", "deepseek_v3"),
    ("deepseek", "<think>", "deepseek_r1"),
    ("glm4", "<think>", "glm45"),
    ("kimi", "<think>", "kimi_k2"),
    ("minimax", "<think>", "minimax_m2"),
    ("seed_oss", "<seed:think>", "seed_oss"),
    ("granite", "thinking", "granite"),
    ("mistral", "[THINK]", "mistral"),
    ("llama", "<｜Assistant｜><think>", "deepseek_r1"),
    ("qwen2", "<｜Assistant｜><think>", "deepseek_r1"),
)


@dataclass(frozen=True)
class Parsers:
    """The parsers' names, None where the template teaches no tool calls or no reasoning."""

    tools: str | None = None
    reasoning: str | None = None


NO_PARSERS = Parsers()


def choose_parsers(model_type: str, template: str) -> Parsers:
    """The parsers of a model of that type with that chat template."""
    tools = _first(TOOLS, model_type, template) if "tools" in template else None
    return Parsers(tools, _first(REASONING, model_type, template))


def _first(rules: tuple[tuple[str, str, str], ...], model_type: str, template: str) -> str | None:
    found = (name for beginning, marker, name in rules if model_type.startswith(beginning) and marker in template)
    return next(found, None)
