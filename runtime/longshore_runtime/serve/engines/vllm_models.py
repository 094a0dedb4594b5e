"""What vLLM finds out about a model's class, found out when the image is built: `… vllm_models FOLDER [ARCHITECTURE …]`.

At each start vLLM wants to know what the class of the model can do, and imports it in a process of its own for that: ten
seconds and more. It keeps what it found below VLLM_CACHE_ROOT, keyed by the class's source; in a pod that folder is new each
time. `bake` fills one in the image, `unpack` puts it where the pod's vLLM looks. Of vLLM 0.32.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

FOLDER = "LONGSHORE_VLLM_MODELS"
"""The environment variable by which an image says where its baked folder is."""

_INFOS = "modelinfos"
_DEVICE = "device"
"""The file that says for what kind of device vLLM looked: of another kind, a class might answer otherwise."""


def bake(folder: Path, architectures: Sequence[str] = ()) -> int:
    """Have vLLM look at these architectures, or at all that it knows; returns how many it could look at."""
    os.environ["VLLM_CACHE_ROOT"] = str(folder)
    from vllm.model_executor.models import registry
    from vllm.platforms import current_platform

    # One process for all: it is thrown away, as the process that vLLM would start for each would be.
    registry._run_in_subprocess = lambda fn: fn()
    known = registry.ModelRegistry.models
    count = 0
    for name in architectures or known:
        try:
            known[name].inspect_model_cls()
            count += 1
        except Exception as error:  # of any kind: some want a package that the image does not have, as their start would
            sys.stderr.write(f"{name}: {type(error).__name__}: {error}\n")
    (folder / _DEVICE).write_text(current_platform.device_type)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # vLLM writes for itself alone, and pods run as anybody
    return count


def unpack(device: str, environment: Mapping[str, str]) -> None:
    """Put the image's findings where the vLLM of this environment looks, should they be of its kind of device.

    Without them vLLM looks for itself, so what cannot be copied is let be.
    """
    baked = Path(environment.get(FOLDER, "/nonexistent"))
    target = Path(environment.get("VLLM_CACHE_ROOT") or Path.home() / ".cache/vllm") / _INFOS
    try:
        if (baked / _DEVICE).read_text() == device and not target.exists():
            shutil.copytree(baked / _INFOS, target)
    except OSError:
        return


if __name__ == "__main__":
    place, *names = sys.argv[1:]
    sys.stdout.write(f"vLLM has looked at {bake(Path(place), names)} architectures\n")
