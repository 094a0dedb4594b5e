"""Kubernetes objects as YAML that every reader takes for the same thing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

Object = dict[str, Any]
"""One Kubernetes object, as the API server takes it."""

_AMBIGUOUS = re.compile(r"[-+.]*\d[\d_.:T-]*(?:[eExXoObB][-+\da-fA-F_]*)?|[yYnN]")


class _Dumper(yaml.SafeDumper):
    """Quotes text that some reader takes for a number, a date or a truth: they differ on `1e3`, `0o7` and `y`."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if _AMBIGUOUS.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(objects: Iterable[Object]) -> str:
    """The objects as a stream of YAML documents, fields in the order they were set."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False)
