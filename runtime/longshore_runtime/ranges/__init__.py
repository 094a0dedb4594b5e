"""Ranges of files over HTTP/1.1, received straight into the caller's buffer over connections that are kept."""

from __future__ import annotations

from longshore_runtime.ranges.question import PLAIN, Check, Take
from longshore_runtime.ranges.reader import PATIENCE, RangeReader

__all__ = ["PATIENCE", "PLAIN", "Check", "RangeReader", "Take"]
