"""Renders a chat template in a process of its own: a task as JSON on stdin, what came of it as JSON on stdout.

The environment is the one that Transformers gives templates (`transformers/utils/chat_template_utils.py`): an immutable
sandbox, `raise_exception`, `strftime_now`, `tojson`, loop controls, and `{% generation %}`, which marks the answers.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS = 10
MEMORY = 1 << 30
"""Bytes of address space: a template that multiplies strings ends here, not this machine."""


class Refusal(Exception):
    """The template called `raise_exception`."""


class Generation(Extension):
    """`{% generation %}…{% endgeneration %}`: its body."""

    tags = {"generation"}  # noqa: RUF012 - the base class has it so

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def make_environment() -> Environment:
    """The sandbox."""

    def refuse(message: object) -> None:
        raise Refusal(str(message))

    def dump(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)

    extensions = [Generation, "jinja2.ext.loopcontrols"]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = dump
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now(UTC).strftime(form)
    return environment


def render_all(task: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """For each conversation of the task: `rendered`, `empty`, `refused`, `failed` or `invalid`, and why."""
    try:
        template = make_environment().from_string(task["template"])
    except TemplateSyntaxError as error:
        return dict.fromkeys(task["conversations"], ("invalid", f"line {error.lineno}: {error.message}"))
    except TemplateError as error:
        return dict.fromkeys(task["conversations"], ("invalid", str(error)[:200]))
    except (RecursionError, MemoryError) as error:  # constants are worked out when the template is parsed
        return dict.fromkeys(task["conversations"], ("failed", type(error).__name__))

    def render(messages: list[dict[str, Any]]) -> tuple[str, str]:
        try:
            text = template.render(messages=messages, tools=None, add_generation_prompt=True, **task["variables"])
        except Refusal as refusal:
            return "refused", str(refusal)[:200]
        except Exception as error:  # whatever a stranger's program raises
            return "failed", f"{type(error).__name__}: {error}"[:200]
        return ("rendered", "") if text.strip() else ("empty", "")

    return {name: render(messages) for name, messages in task["conversations"].items()}


def main() -> None:
    """Render one task within the limits."""
    task = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    if sys.platform == "linux":  # elsewhere the limit is not enforced, or cannot be set
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    json.dump(render_all(task), sys.stdout)


if __name__ == "__main__":
    main()
