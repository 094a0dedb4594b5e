"""Which adapters the pods of a service serve, by their launchers' own account. Pure: reads what those answered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from longshore.fleet.yaml import Object
from longshore_runtime.serve.state import AdapterState

_OPTIONS = frozenset({"--adapter", "--adapters-dir"})
"""Options of a launcher that serves adapters."""


@dataclass(frozen=True)
class SeenAdapter:
    """An adapter by its name and its digest (hex, None where it has no manifest), as so many `pods` tell of it.

    `late`: it came while they ran. `refused` is why they do not serve it, None where they do.
    """

    name: str
    digest: str | None
    late: bool
    refused: str | None
    pods: int


def may_have_adapters(service: Object) -> bool:
    """Whether an InferenceService's pods are told of adapters, or of a place where some may appear."""
    arguments = service["spec"]["predictor"].get("model", {}).get("args") or []
    return any(argument.partition("=")[0] in _OPTIONS for argument in arguments)


def read_adapters(answers: Sequence[str]) -> tuple[SeenAdapter, ...]:
    """The adapters in what launchers answered to `/state`, by name. One that tells of none, or not of them, has none."""
    counts = Counter(adapter for answer in answers for adapter in _parse(answer))
    seen = (SeenAdapter(one.name, one.digest, one.late, one.refused, pods) for one, pods in counts.items())
    return tuple(sorted(seen, key=lambda one: (one.name, one.refused or "", one.late, one.digest or "")))


def _parse(answer: str) -> Iterator[AdapterState]:
    try:
        content: Any = json.loads(answer)
    except ValueError:
        return
    told = content.get("adapters") if isinstance(content, dict) else None
    for one in told if isinstance(told, list) else []:
        if isinstance(one, dict) and isinstance(name := one.get("name"), str):
            yield AdapterState(name, _text(one.get("digest")), one.get("late") is True, _text(one.get("refused")))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
