"""What each of vLLM's processes loads of us, by the entry point `vllm.general_plugins`: the loader that waits for weights."""

from __future__ import annotations

import os
import time
from pathlib import Path

from longshore_runtime.arrivals import ARRIVALS, Arrivals

LOAD_FORMAT = "longshore"
GROUP, NAME = "vllm.general_plugins", "longshore"

_INTERVAL = 0.05


def register() -> None:
    """Make the load format known where weights are to arrive; a vLLM that we did not start stays as it is.

    vLLM calls this before it looks at the model, and begins itself to look once this returns: when there is a preview of it.
    """
    if ARRIVALS not in os.environ:
        return
    from vllm.model_executor.model_loader import register_model_loader

    from longshore_runtime.serve.engines.vllm_loader import WaitingLoader

    register_model_loader(LOAD_FORMAT)(WaitingLoader)
    await_preview(Arrivals(Path(os.environ[ARRIVALS])))


def await_preview(arrivals: Arrivals) -> None:
    """Return when the folder is there that an engine may be started on. Raises RuntimeError when it will not come."""
    while arrivals.update().preview is None:
        if arrivals.error is not None:
            raise RuntimeError(f"the weights did not arrive: {arrivals.error}")
        time.sleep(_INTERVAL)
