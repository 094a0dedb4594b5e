"""llama.cpp's metrics, as far as they tell whether it works. Names of `llama-server --metrics`, builds of September 2026."""

from __future__ import annotations

from longshore_runtime.serve.engines.counters import count
from longshore_runtime.serve.engines.port import Figures

OWED = ("llamacpp:requests_processing", "llamacpp:requests_deferred")
"""Requests that have a slot, and such as wait for one."""

WORK = (
    "llamacpp:n_decode_total",  # the one that moves with each step; the others do when a request ends
    "llamacpp:prompt_tokens_total",
    "llamacpp:tokens_predicted_total",
)


def read_figures(metrics: str) -> Figures:
    """Of the text that `/metrics` answers with. It does not count the requests that have ended."""
    return count(metrics, owed=OWED, work=WORK)
