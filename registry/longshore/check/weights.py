"""The weights: are all files there, are they whole, is every tensor there once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from longshore.check.contents import Contents
from longshore.check.files import is_pointer
from longshore.check.findings import Finding
from longshore_runtime.errors import InvalidModel
from longshore_runtime.progress import format_size
from longshore_runtime.serve.facts import INDEX_SUFFIX
from longshore_runtime.serve.safetensors import DTYPE_BITS, Tensor, read_tensors

_PARALLEL = 8
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.safetensors")
_SHOWN = 3


@dataclass
class Weights:
    """The tensors by name of each file that the engine reads, and what was found on the way.

    `pointers`: some of the files are Git LFS pointers, which are reported as that.
    """

    files: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    pointers: bool = False

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All of them."""
        return {name: tensor for found in self.files.values() for name, tensor in found.items()}

    @property
    def whole(self) -> bool:
        """Whether all of them are known, so that a missing one can be told."""
        return not self.pointers and not {f.code for f in self.findings} & {"weights-damaged", "shard-missing"}


def read_weights(contents: Contents) -> Weights:
    """The headers of all safetensors files, those that no engine reads included; only the others' tensors are kept."""
    weights = Weights(pointers=any(is_pointer(blob.head) for blob in contents.files.values()))
    headers = _read_headers(contents, weights.findings)
    top = {path for path in headers if "/" not in path}
    index = next((path for path in contents.files if path.endswith(INDEX_SUFFIX) and "/" not in path), None)
    listed: Mapping[str, str] = {}
    if index is not None:
        listed = _read_index(contents, index, weights.findings)
        weights.findings += _check_index(index, listed, headers, contents)
    elif "model.safetensors" in top and len(top) > 1:
        listed = dict.fromkeys(headers["model.safetensors"], "model.safetensors")
    used = top & set(listed.values()) if listed else {path for path in top if not path.startswith("consolidated")} or top
    weights.files = {path: headers[path] for path in sorted(used)}
    weights.findings += _check_names(used, contents)
    weights.findings += _check_duplicates(weights.files)
    weights.findings += _check_dtypes(weights.files)
    weights.findings += _find_unread(contents, used)
    return weights


def _read_headers(contents: Contents, findings: list[Finding]) -> dict[str, dict[str, Tensor]]:
    paths = [path for path, blob in contents.files.items() if path.endswith(".safetensors") and not is_pointer(blob.head)]

    def read(path: str) -> dict[str, Tensor] | InvalidModel:
        try:
            return read_tensors(contents.files[path])
        except InvalidModel as error:
            return error

    with ThreadPoolExecutor(_PARALLEL) as pool:
        found = dict(zip(paths, pool.map(read, paths), strict=True))
    for path, header in found.items():
        if isinstance(header, InvalidModel):
            findings.append(Finding("weights-damaged", path, header.message.partition(" is ")[2] or header.message))
    return {path: header for path, header in found.items() if not isinstance(header, InvalidModel)}


def _read_index(contents: Contents, index: str, findings: list[Finding]) -> dict[str, str]:
    listed = contents.read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(shard, str) for shard in listed.values()):
        if not any(flaw.path == index for flaw in contents.flaws):
            findings.append(Finding("index-invalid", index, "it has no weight_map"))
        return {}
    return listed


def _check_index(
    index: str, listed: Mapping[str, str], headers: Mapping[str, Mapping[str, Tensor]], contents: Contents
) -> Iterator[Finding]:
    shards = sorted(set(listed.values()))
    for shard in shards:
        if shard not in contents:
            yield Finding("shard-missing", shard, f"{index} names it and it is not there")
    for shard in (shard for shard in shards if shard in headers):
        expected = {name for name, where in listed.items() if where == shard}
        if absent := expected - headers[shard].keys():
            yield Finding("tensor-missing", shard, f"{index} expects {name_some(absent)} in it")
        if unlisted := headers[shard].keys() - expected:
            yield Finding("tensor-unlisted", shard, f"{index} does not list {name_some(unlisted)} for it")


def _check_names(used: set[str], contents: Contents) -> Iterator[Finding]:
    """Numbers that are left out in `model-00001-of-00004`; an index, where there is one, told of them already."""
    if any(path.endswith(INDEX_SUFFIX) and "/" not in path for path in contents.files):
        return
    for stem, total in sorted({(found[1], found[3]) for found in map(_SHARD.fullmatch, used) if found}):
        for number in range(1, int(total) + 1):
            shard = f"{stem}-{number:05d}-of-{total}.safetensors"
            if shard not in contents:
                yield Finding("shard-missing", shard, f"the others are numbered up to {int(total)} and it is not there")


def _check_duplicates(files: Mapping[str, Mapping[str, Tensor]]) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for path, tensors in files.items():
        if twice := [name for name in tensors if name in first]:
            yield Finding("tensor-duplicate", path, f"{name_some(twice)}: {first[twice[0]]} has it too")
        first |= dict.fromkeys(tensors, path)


def _check_dtypes(files: Mapping[str, Mapping[str, Tensor]]) -> Iterator[Finding]:
    for path, tensors in files.items():
        if unknown := {name: tensor.dtype for name, tensor in tensors.items() if tensor.dtype not in DTYPE_BITS}:
            yield Finding("tensor-dtype", path, f"{name_some(unknown)} is {next(iter(unknown.values()))}")


def _find_unread(contents: Contents, used: set[str]) -> Iterator[Finding]:
    """Weights beside those that the engine reads: another format's, or a folder's."""
    gguf = [path for path in contents.files if path.endswith(".gguf")]
    for path in gguf:
        blob = contents.files[path]
        if not blob.head.startswith(b"GGUF") and not is_pointer(blob.head):
            yield Finding("weights-damaged", path, "it does not begin as a GGUF file does")
    if not used and not gguf:
        unfit = [path for path in contents.files if path.endswith((".safetensors", ".bin", ".pt", ".pth"))]
        detail = f"only {name_some(unfit)}" if unfit else "there are no .safetensors and no .gguf files"
        if not any(path.endswith(".safetensors") for path in unfit):
            yield Finding("weights-missing", None, detail)
        return
    for path, blob in contents.files.items():
        if path.endswith(".safetensors") and path not in used:
            yield Finding("weights-unread", path, f"the engine does not read it ({format_size(blob.size)})")


def name_some(names: Iterable[str]) -> str:
    """The first few of many names, in order."""
    known = sorted(names)
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return ", ".join(known[:_SHOWN]) + more
