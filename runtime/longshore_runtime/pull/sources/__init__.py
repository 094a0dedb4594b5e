"""Where a tree can be read from. A new source is one file here, one line in SOURCES, one row in the contract suite."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from longshore_runtime.addresses import redact
from longshore_runtime.errors import LongshoreError
from longshore_runtime.lookup import load
from longshore_runtime.pull.sources.port import Source

SOURCES = {
    "file": "longshore_runtime.pull.sources.file:FileSource",
    "hf": "longshore_runtime.pull.sources.huggingface:HuggingFaceSource",
    "http": "longshore_runtime.pull.sources.https:HttpsSource",
    "https": "longshore_runtime.pull.sources.https:HttpsSource",
    "longshore": "longshore_runtime.pull.sources.longshore:LongshoreSource",
    "modelscope": "longshore_runtime.pull.sources.modelscope:ModelScopeSource",
    "pvc": "longshore_runtime.pull.sources.pvc:PvcSource",
    "s3": "longshore_runtime.pull.sources.s3_plain:open_s3",
}


def open_source(uri: str) -> Source:
    """The source that reads the tree at `uri`, or at an absolute path. Raises LongshoreError for a scheme that none reads."""
    if uri.startswith("/"):
        uri = Path(uri).as_uri()  # as KServe gives what it has mounted
    scheme = uri.partition("://")[0]
    if "://" not in uri or scheme not in SOURCES:
        known = ", ".join(f"{name}://" for name in SOURCES)
        raise LongshoreError(f"{redact(scheme)}:// is not a kind of storage that can be pulled from", f"use one of {known}")
    return cast(Source, load(SOURCES[scheme])(uri))
