"""vLLM's metrics, as far as they tell whether its core works. Names as of 0.32, the same since 0.10."""

from __future__ import annotations

from longshore_runtime.serve.engines.counters import count
from longshore_runtime.serve.engines.port import Figures

OWED = ("vllm:num_requests_running", "vllm:num_requests_waiting")
"""Requests that the core has, as of its last step."""

ENDED = "vllm:request_success_total"

WORK = (
    "vllm:iteration_tokens_total_count",
    "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total",
    "vllm:num_preemptions_total",
    "vllm:kv_cache_usage_perc",  # the one that moves while a long prompt is read piece by piece
)
"""What only a step of the core changes. A request that its client gives up changes others, while the core hangs too."""


def read_figures(metrics: str) -> Figures:
    """Of the text that `/metrics` answers with; engines of several copies are added up."""
    return count(metrics, owed=OWED, ended=[ENDED], work=WORK)
