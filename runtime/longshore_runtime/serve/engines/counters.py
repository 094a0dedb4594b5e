"""Metrics in Prometheus' text format, as far as engines are read by them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from longshore_runtime.serve.engines.port import Figures

_LINE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{.*\})? +(\S+)")


def count(metrics: str, *, owed: Sequence[str], ended: Sequence[str] = (), work: Sequence[str]) -> Figures:
    """The figures, by the names of the metrics that they are: 0 where one is not there yet.

    Those of several processes or labels are added up.
    """
    sums = dict.fromkeys((*owed, *ended, *work), 0.0)
    for line in metrics.splitlines():
        if (found := _LINE.match(line)) and found[1] in sums:
            sums[found[1]] += float(found[2])
    requests = [sums[name] for name in owed]
    return Figures(int(sum(requests)), int(sum(sums[name] for name in ended)), (*requests, *(sums[name] for name in work)))
