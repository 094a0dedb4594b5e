"""TensorRT-LLM's iterations, as far as they tell whether it works. Names of 1.3.0rc3 (executor/jsonSerialization.cpp)."""

from __future__ import annotations

import json
from contextlib import suppress

from longshore_runtime.serve.engines.port import Figures

OWED = ("numActiveRequests", "numQueuedRequests")
STEP = "iter"


def read_figures(metrics: str) -> Figures:
    """Of the JSON that `/metrics` answers with: the last iteration since somebody asked, nothing where there was none.

    It does not count the requests that have ended.
    """
    with suppress(ValueError, TypeError, KeyError, IndexError):
        last = json.loads(metrics)[-1]
        return Figures(sum(int(last[name]) for name in OWED), 0, (float(last[STEP]),))
    return Figures()
