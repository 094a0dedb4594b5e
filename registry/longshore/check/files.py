"""Files by themselves: what they are, whatever the model."""

from __future__ import annotations

from collections.abc import Iterator

from longshore.check.contents import Contents
from longshore.check.findings import Finding
from longshore.check.pickles import find_pickle
from longshore_runtime import paths
from longshore_runtime.progress import format_size

_LFS = b"version https://git-lfs.github.com/spec/"
_NATIVE = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"MZ\x90\x00")
_NOT_PICKLED = (".safetensors", ".gguf", ".json", ".txt", ".md", ".jinja", ".py")
"""Files that are read by what their name says, and checked as that."""


def check_files(contents: Contents) -> Iterator[Finding]:
    """Names that cannot be stored, pointers, pickles and code."""
    for path in contents.files:
        if flaw := paths.find_flaw(path):
            yield Finding("name-refused", path, flaw)
    if collision := paths.find_collision(contents.files):
        yield Finding("name-refused", collision[1], f"it cannot lie on every disk beside {collision[0]}")
    for path, blob in contents.files.items():
        if blob.head.startswith(_LFS):
            yield Finding("lfs-pointer", path, f"it is a Git LFS pointer of {format_size(blob.size)}, not the file itself")
        elif blob.head.startswith(_NATIVE):
            yield Finding("native-code", path, "it is native code")
        elif path.endswith(".py"):
            yield Finding("python-file", path, "it is Python code")
        elif not path.endswith(_NOT_PICKLED) and (why := find_pickle(path, blob)):
            yield Finding("pickle", path, why)


def is_pointer(head: bytes) -> bool:
    """Whether a file is a Git LFS pointer; whoever looks into it would only find what is reported already."""
    return head.startswith(_LFS)
