"""Adapters by name: tables say where each is, and only the one that is asked for is imported."""

from __future__ import annotations

import importlib
from typing import Any


def load(place: str) -> Any:
    """What `package.module:Name` names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
