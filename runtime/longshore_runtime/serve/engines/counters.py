"""Metrics in Prometheus' text format, as far as engines are read by them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LINE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{.*\})? +(\S+)")


def add_up(metrics: str, names: Iterable[str]) -> dict[str, float]:
    """The metrics of these names, 0 where one is not there yet; those of several processes or labels are added up."""
    sums = dict.fromkeys(names, 0.0)
    for line in metrics.splitlines():
        if (found := _LINE.match(line)) and found[1] in sums:
            sums[found[1]] += float(found[2])
    return sums
