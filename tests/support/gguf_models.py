"""The demo model as its package carries it: one quantised GGUF file, kept beside the converted one."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from pathlib import Path

from support.models import load_example


def find_smollm2_gguf() -> Path:
    """A folder with SmolLM2-135M-Instruct in Q4_1, 98 MB, made once and kept outside the tree."""
    example = load_example("smollm2")
    target: Path = example.default_directory().parent / "smollm2-gguf"
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=target.parent) as made:
                gguf = example.install_wheel(Path(made))
                (folder := Path(made) / "folder").mkdir()
                shutil.copyfile(gguf, folder / example.GGUF)
                folder.rename(target)
    return target


def write_lora(path: Path, base: Path, *, rank: int = 4, seed: int = 1) -> Path:
    """A LoRA adapter for a GGUF of Llama's architecture, with enough in it to change every answer."""
    import gguf as reference
    import numpy as np

    numbers = np.random.default_rng(seed)
    writer = reference.GGUFWriter(path, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 2.0 * rank)
    for tensor in reference.GGUFReader(base).tensors:
        if tensor.name.endswith(("attn_q.weight", "attn_output.weight")):
            inputs, outputs = (int(size) for size in tensor.shape)
            writer.add_tensor(f"{tensor.name}.lora_a", numbers.normal(0, 1, (rank, inputs)).astype(np.float32))
            writer.add_tensor(f"{tensor.name}.lora_b", numbers.normal(0, 1, (outputs, rank)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
