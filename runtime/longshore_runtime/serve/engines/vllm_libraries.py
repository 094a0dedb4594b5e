"""The libraries that vLLM wants loaded first on a CPU. Of vLLM 0.32 (`platforms/cpu.py`, check_and_update_config).

vLLM puts them into LD_PRELOAD for the processes that it spawns. A process that is forked has those of its parent, so the server
begins with them: PyTorch's own OpenMP, without which threads bound to cores share one of them (vllm#27369), and
tcmalloc, which vLLM recommends and some of its builds have with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

OPENMP = ("libgomp", "libiomp", "libomp")
TCMALLOC = "libtcmalloc"
SYSTEM = (Path("/usr/lib"), Path("/usr/lib64"))
"""Where distributions have theirs: there, or in a folder of the architecture below it."""


def find_preloads(already: str = "", system: Iterable[Path] = SYSTEM) -> str:
    """LD_PRELOAD for the server: what is in it already, and those of the two that it lacks and that can be found."""
    torch, vllm = _folder_of("torch"), _folder_of("vllm")
    openmp = tcmalloc = None
    if torch and not any(name in already for name in OPENMP):
        openmp = _first([torch.parent / "torch.libs", torch / "lib"], "libgomp*.so*")
    if vllm and TCMALLOC not in already:
        places = [place for root in system for place in (root, *sorted(root.glob("*-linux-gnu")))]
        tcmalloc = _first([vllm / "libs"], "libtcmalloc_minimal*.so*", "libtcmalloc.so*")
        tcmalloc = tcmalloc or _first(places, "libtcmalloc_minimal.so.?")
    return ":".join(str(part) for part in (tcmalloc, already, openmp) if part)


def _folder_of(package: str) -> Path | None:
    spec = find_spec(package)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def _first(folders: Iterable[Path], *patterns: str) -> Path | None:
    return next((path for pattern in patterns for folder in folders for path in sorted(folder.glob(pattern))), None)
