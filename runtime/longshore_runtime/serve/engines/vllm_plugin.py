"""What each of vLLM's processes loads of us, by the entry point `vllm.general_plugins`: the loader that waits for weights."""

from __future__ import annotations

import os

from longshore_runtime.arrivals import ARRIVALS

LOAD_FORMAT = "longshore"
GROUP, NAME = "vllm.general_plugins", "longshore"


def register() -> None:
    """Make the load format known where weights are to arrive; a vLLM that we did not start stays as it is."""
    if ARRIVALS not in os.environ:
        return
    from vllm.model_executor.model_loader import register_model_loader

    from longshore_runtime.serve.engines.vllm_loader import WaitingLoader

    register_model_loader(LOAD_FORMAT)(WaitingLoader)
