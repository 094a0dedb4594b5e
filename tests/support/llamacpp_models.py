"""What the llama.cpp in the installed xllamacpp can serve, and the flags that its own parser knows, asked of the library.

`make models` writes it down. The result lies beside the engine's adapter; tests compare it with the package that is installed.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

EMBEDDING = re.compile(r".*bert.*|.*-embed(ding)?|t5encoder")
DRAFT = ("eagle3", "dflash", "gemma4-assistant")
NO_MODELS = ("clip", "wavtokenizer-dec", "(unknown)")

HELP = "from longshore_runtime.serve.engines.llamacpp_server import parse; parse(['--help'])"


def collect() -> dict[str, Any]:
    """The table as it is written down."""
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    spellings = [_spellings(line) for line in done.stdout.splitlines() if line.startswith("-") and not line.startswith("---")]
    assert len(spellings) > 100, done.stdout
    names = [names for names in spellings if "--help" not in names]
    return {
        "version": importlib.metadata.version("xllamacpp"),
        "architectures": {name: _kind(name) for name in sorted(_architectures()) if name not in NO_MODELS},
        "removed": {},
        "suffixes": {},
        "fallback": [],
        "quantizations": ["gguf"],
        "arguments": sorted(name[2:] for each in names for name in each if name.startswith("--")),
        "short": {name[1:]: _long(each) for each in names for name in each if not name.startswith("--") and _long(each)},
    }


def _spellings(line: str) -> list[str]:
    """`-c,    --ctx-size N                     size of …` → -c, --ctx-size."""
    found = re.match(r"(--?[\w.-]+)(, +--?[\w.-]+)*", line)
    return re.split(r", +", found[0]) if found else []


def _long(spellings: list[str]) -> str:
    return next((name[2:] for name in spellings if name.startswith("--")), "")


def _kind(name: str) -> str:
    return "embed" if EMBEDDING.fullmatch(name) else "draft" if name in DRAFT else "generate"


def _architectures() -> list[str]:
    """Every name in LLM_ARCH_NAMES (src/llama-arch.cpp), up to the one that stands for none of them."""
    from xllamacpp import xllamacpp

    name_of = ctypes.CDLL(xllamacpp.__file__)["_Z13llm_arch_name8llm_arch"]
    name_of.restype = ctypes.c_char_p
    found: list[str] = []
    while "(unknown)" not in found:
        found.append(name_of(len(found)).decode())
    return found


def path() -> Path:
    return Path(__file__).parents[2] / "runtime/longshore_runtime/serve/engines/llamacpp_supported.json"


if __name__ == "__main__":
    path().write_text(json.dumps(collect(), indent=1) + "\n")
