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
