"""GPUs by name: memory, how many a node has, what joins them, what they compute with.

`memory` is what CUDA offers a program (`torch.cuda.get_device_properties`), which is less than nvidia-smi's total and than
the name says; of parts whose figure is not known to us the nominal decimal gigabytes, which are less still. Sources:
NVIDIA's and AMD's data sheets; `per_node` is the largest usual server (DGX, HGX, the clouds' instances for smaller ones).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longshore_runtime.errors import LongshoreError

MIB, GIB = 1024**2, 1024**3


@dataclass(frozen=True)
class GPU:
    """A kind of GPU. `memory` in bytes, `capability` NVIDIA's compute capability (0 for others)."""

    name: str
    title: str
    memory: int
    per_node: int
    interconnect: str
    capability: float = 0.0

    @property
    def vendor(self) -> str:
        """Who makes it."""
        return "nvidia" if self.capability else "amd"


def _gpu(name: str, title: str, mib: int, per_node: int, interconnect: str, capability: float = 0.0) -> GPU:
    return GPU(name, title, mib * MIB, per_node, interconnect, capability)


def _nominal(gigabytes: int) -> int:
    """MiB in so many decimal gigabytes."""
    return gigabytes * 10**9 // MIB


CATALOGUE = {
    gpu.name: gpu
    for gpu in (
        _gpu("t4", "NVIDIA T4", 14930, 4, "PCIe", 7.5),
        _gpu("v100-16g", "NVIDIA V100 16 GB", 16150, 8, "NVLink", 7.0),
        _gpu("v100-32g", "NVIDIA V100 32 GB", 32490, 8, "NVLink", 7.0),
        _gpu("a10", "NVIDIA A10", 22560, 4, "PCIe", 8.6),
        _gpu("a10g", "NVIDIA A10G", 22560, 8, "PCIe", 8.6),
        _gpu("a30", "NVIDIA A30", 24060, 4, "PCIe", 8.0),
        _gpu("a40", "NVIDIA A40", 45410, 8, "PCIe", 8.6),
        _gpu("a100-40g", "NVIDIA A100 40 GB", 40330, 8, "NVLink", 8.0),
        _gpu("a100-80g", "NVIDIA A100 80 GB", 81050, 8, "NVLink", 8.0),
        _gpu("rtx-a6000", "NVIDIA RTX A6000", 48670, 4, "PCIe", 8.6),
        _gpu("rtx-3090", "NVIDIA GeForce RTX 3090", 24260, 2, "PCIe", 8.6),
        _gpu("rtx-4090", "NVIDIA GeForce RTX 4090", 24210, 2, "PCIe", 8.9),
        _gpu("rtx-5090", "NVIDIA GeForce RTX 5090", 32110, 2, "PCIe", 12.0),
        _gpu("rtx-6000-ada", "NVIDIA RTX 6000 Ada", 48520, 4, "PCIe", 8.9),
        _gpu("rtx-pro-6000", "NVIDIA RTX PRO 6000 Blackwell", _nominal(96), 8, "PCIe", 12.0),
        _gpu("l4", "NVIDIA L4", 22560, 8, "PCIe", 8.9),
        _gpu("l40s", "NVIDIA L40S", 45450, 8, "PCIe", 8.9),
        _gpu("h20", "NVIDIA H20 96 GB", 97200, 8, "NVLink", 9.0),
        _gpu("h100", "NVIDIA H100 80 GB", 81000, 8, "NVLink", 9.0),
        _gpu("h100-nvl", "NVIDIA H100 NVL 94 GB", 95300, 4, "NVLink pairs", 9.0),
        _gpu("h200", "NVIDIA H200 141 GB", 142300, 8, "NVLink", 9.0),
        _gpu("gh200", "NVIDIA GH200 96 GB", _nominal(96), 1, "NVLink-C2C", 9.0),
        _gpu("b200", "NVIDIA B200", 182500, 8, "NVLink", 10.0),
        _gpu("b300", "NVIDIA B300", _nominal(270), 8, "NVLink", 10.3),
        _gpu("gb200", "NVIDIA GB200", _nominal(186), 4, "NVLink", 10.0),
        _gpu("mi210", "AMD Instinct MI210", _nominal(64), 8, "PCIe"),
        _gpu("mi250x", "AMD Instinct MI250X (one die)", _nominal(64), 8, "Infinity Fabric"),
        _gpu("mi300x", "AMD Instinct MI300X", _nominal(192), 8, "Infinity Fabric"),
        _gpu("mi325x", "AMD Instinct MI325X", _nominal(256), 8, "Infinity Fabric"),
        _gpu("mi355x", "AMD Instinct MI355X", _nominal(288), 8, "Infinity Fabric"),
    )
}

ALIASES = {"h100-80g": "h100", "a100": "a100-80g", "v100": "v100-16g", "rtx4090": "rtx-4090", "rtx3090": "rtx-3090"}
NO_FP8 = frozenset({"mi210", "mi250x"})

FIELDS = frozenset({"title", "memory_gib", "per_node", "interconnect", "capability"})


def find_gpu(name: str, own: Mapping[str, GPU] | None = None) -> GPU:
    """The GPU of that name, from `own` before the built-in ones. Raises LongshoreError, naming what is alike."""
    known = {**CATALOGUE, **(own or {})}
    wanted = name.strip().lower().replace("_", "-").replace(" ", "-").removesuffix("b")
    if found := known.get(name) or known.get(wanted) or known.get(ALIASES.get(wanted, "")):
        return found
    alike = difflib.get_close_matches(wanted, known, cutoff=0.4) or sorted(known)
    raise LongshoreError(
        f"the GPU {name!r} is not in the catalogue",
        f"did you mean {' or '.join(alike[:3])}? Others go into a file: --gpus-file",
    )


def read_gpus(content: Any, file: str) -> dict[str, GPU]:
    """GPUs from a file's content: `name: {memory_gib: 48, per_node: 4, interconnect: PCIe, capability: 8.9}`.

    Only the memory is needed. Raises LongshoreError, naming the entry.
    """
    if not isinstance(content, Mapping):
        raise LongshoreError(f"{file} does not describe GPUs", "write one per key: NAME: {memory_gib: 48, per_node: 4}")
    return {str(name): _read_gpu(str(name), entry, file) for name, entry in content.items()}


def _read_gpu(name: str, entry: Any, file: str) -> GPU:
    hint = f"write {name}: {{memory_gib: 48, per_node: 4, interconnect: PCIe, capability: 8.9}}"
    if not isinstance(entry, Mapping):
        raise LongshoreError(f"{file}: {name} is not described by fields", hint)
    if unknown := sorted(map(str, entry.keys() - FIELDS)):
        raise LongshoreError(f"{file}: {name} has the field {unknown[0]}, which is none of a GPU's", hint)
    memory, per_node, capability = (
        entry.get(key, value) for key, value in (("memory_gib", 0), ("per_node", 1), ("capability", 0))
    )
    if not _is_number(memory) or not 0 < memory < 1e6:
        raise LongshoreError(f"{file}: {name} needs memory_gib, a number of GiB", hint)
    if type(per_node) is not int or not 0 < per_node <= 1024:
        raise LongshoreError(f"{file}: {name} has per_node {per_node!r}, which is no number of GPUs", hint)
    if not _is_number(capability) or not 0 <= capability < 100:
        raise LongshoreError(f"{file}: {name} has capability {capability!r}, which is no compute capability", hint)
    title, interconnect = str(entry.get("title", name)), str(entry.get("interconnect", "PCIe"))
    return GPU(name, title, int(memory * GIB), per_node, interconnect, float(capability))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
