"""vLLM's own server, sooner there: `… vllm_server ARGUMENTS`, which are vLLM's. Of vLLM 0.32.

Two things that its start waits for are left out. Python's collector of garbage goes through all that is being imported, again
and again, and finds none. And on a CPU the engine's core is a spawned process, which imports everything a second time; here it
is forked from this one when that has imported all and done nothing yet (`standby`). Where vLLM wants of the core's process what
a fork cannot give, it is spawned as ever.
"""

from __future__ import annotations

import gc
import os
import runpy
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from longshore_runtime.serve.engines.standby import Standby

ENTRY = "vllm.entrypoints.launchers.api_server.entry"
OLD_ENTRY = "vllm.entrypoints.openai.api_server"
"""The module whose `main` is vLLM's server; and the one to run where a vLLM does not have that yet."""

CORE = ("vllm.v1.engine.core", "vllm.v1.engine.async_llm")
WORKER = ("vllm.v1.worker.cpu_worker", "vllm.v1.executor.uniproc_executor", "vllm.v1.attention.backends.cpu_attn")
"""What the core of an engine on a CPU imports besides, while the server reads its arguments."""

_INHERITED = "tensor_queue"
"""The argument of the core's process that only a spawned one, or one forked there and then, can be given."""


class Context:
    """vLLM's choice of how processes are started, but that the first of them is the one which stands by."""

    def __init__(self, chosen: BaseContext, standby: Standby, preloaded: str | None) -> None:
        """`preloaded`: LD_PRELOAD as it was when the process that stands by was forked."""
        self._chosen = chosen
        self._standby = standby
        self._preloaded = preloaded

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chosen, name)

    def Process(self, *, target: Callable[..., object], name: str, kwargs: Mapping[str, Any]) -> BaseProcess:  # noqa: N802
        """A process that has not been started."""
        same = os.environ.get("LD_PRELOAD") == self._preloaded  # libraries can be put first only where a program begins
        if self._chosen.get_start_method() == "spawn" and same and not self._standby.taken and not kwargs.get(_INHERITED):
            return self._standby.take(target, name, kwargs)
        self._standby.dismiss()
        process: BaseProcess = self._chosen.Process(target=target, name=name, kwargs=kwargs)  # type: ignore[attr-defined]
        return process


def stand_by() -> None:
    """Fork the process of the engine's core now, and have vLLM take it where it would spawn one."""
    utils = import_module("vllm.v1.engine.utils")
    standby, preloaded = Standby(WORKER), os.environ.get("LD_PRELOAD")
    choose: Callable[[], BaseContext] = utils.get_mp_context
    setattr(utils, "get_mp_context", lambda: Context(choose(), standby, preloaded))  # noqa: B010


def main() -> None:
    """Run vLLM's server in this process, with the arguments of the command line."""
    gc.disable()
    if find_spec("vllm.entrypoints.launchers") is None:
        gc.enable()
        runpy.run_module(OLD_ENTRY, run_name="__main__", alter_sys=True)
        return
    entry = import_module(ENTRY)
    for module in CORE:
        import_module(module)
    gc.freeze()
    gc.enable()
    # With `--numa-bind` vLLM starts the core by a command of its own.
    if import_module("vllm.platforms").current_platform.is_cpu() and "--numa-bind" not in sys.argv:
        stand_by()
    entry.main()


if __name__ == "__main__":
    main()
