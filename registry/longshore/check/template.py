"""Chat templates: do they parse, do they render what clients send.

A template is a program, and a stranger's. It is rendered in a process of its own (`rendering.py`) with a sandbox, a
limit on time and one on memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

from longshore.check.contents import Contents
from longshore.check.findings import Finding

Outcome = Literal["rendered", "empty", "refused", "failed", "invalid"]

SECONDS = 20
_USER = {"role": "user", "content": "What is the capital of France?"}
_PARTS = {"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]}
_SYSTEM = {"role": "system", "content": "Answer briefly."}
_ANSWER = {"role": "assistant", "content": "Paris."}

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "a user's message": [_USER],
    "a user's message in parts": [_PARTS],
    "a system message": [_SYSTEM, _USER],
    "a second question": [_USER, _ANSWER, _USER],
}
"""What each template is given. One of the first two must work: which one depends on whether the model sees images."""

_FIRST = tuple(CONVERSATIONS)[:2]
_OWN_FILE = "chat_template.jinja"


def read_templates(contents: Contents) -> dict[str, tuple[str, str]]:
    """The templates by name, each with the file that it is in; `default` is the one that engines use unasked."""
    found: dict[str, tuple[str, str]] = {}
    carriers = ("tokenizer_config.json", "chat_template.json", "processor_config.json")
    for path in carriers:
        stored = contents.read_json(path).get("chat_template")
        if isinstance(stored, str):
            found.setdefault("default", (path, stored))
        for named in stored if isinstance(stored, list) else []:
            if isinstance(named, dict) and isinstance(named.get("template"), str):
                found.setdefault(str(named.get("name")), (path, named["template"]))
    if (text := contents.read_text(_OWN_FILE)) is not None:
        found["default"] = (_OWN_FILE, text)
    return found


def check_templates(contents: Contents) -> Iterator[Finding]:
    """Each template, parsed and rendered; that there is none is a warning, since completions still work."""
    templates = read_templates(contents)
    if not templates:
        yield Finding("template-missing", None, f"there is no {_OWN_FILE} and none in tokenizer_config.json")
    for name, (path, text) in templates.items():
        title = "the chat template" if name == "default" else f"the chat template {name}"
        yield from _judge(path, title, render(text, tuple(_special_tokens(contents).items())))


def _judge(path: str, title: str, outcomes: Mapping[str, tuple[Outcome, str]]) -> Iterator[Finding]:
    (state, detail), *_ = outcomes.values()
    if state == "invalid":
        yield Finding("template-invalid", path, f"{title}: {detail}")
        return
    good = [name for name, (outcome, _) in outcomes.items() if outcome == "rendered"]
    if not set(good) & set(_FIRST):
        yield Finding("template-fails", path, f"{title} fails for a user's message: {detail or 'it renders nothing'}")
        return
    for name in (name for name in outcomes if name not in (*good, *_FIRST)):
        reason = outcomes[name][1] or "it renders nothing"
        yield Finding("template-limited", path, f"{title} does not take {name}: {reason}")


@lru_cache(maxsize=64)  # most versions of a model have the template of the one before
def render(template: str, variables: tuple[tuple[str, str], ...] = ()) -> Mapping[str, tuple[Outcome, str]]:
    """What comes of each of CONVERSATIONS, with the reason where nothing did. Never raises for what the template does."""
    task = json.dumps({"template": template, "variables": dict(variables), "conversations": CONVERSATIONS})
    command = [sys.executable, "-m", "longshore.check.rendering"]
    try:
        done = subprocess.run(command, input=task, capture_output=True, text=True, timeout=SECONDS, check=False)
        answers = json.loads(done.stdout)
        return {name: (answers[name][0], answers[name][1]) for name in CONVERSATIONS}
    except subprocess.TimeoutExpired:
        return dict.fromkeys(CONVERSATIONS, ("failed", f"it took more than {SECONDS} s"))
    except (ValueError, KeyError):
        return dict.fromkeys(CONVERSATIONS, ("failed", "it needs more time or memory than any template should"))


def _special_tokens(contents: Contents) -> dict[str, str]:
    """`bos_token` and its like, which templates name."""
    known = contents.read_json("special_tokens_map.json") | contents.read_json("tokenizer_config.json")
    found = {}
    for name, value in known.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found
