"""Names of objects in a cluster: short, legal, and never the same for two versions."""

from __future__ import annotations

import hashlib
import re

from longshore_runtime.errors import LongshoreError

HOST_LIMIT = 63
"""Characters of `<name>-predictor-<namespace>`, which KServe makes a host name of."""

_HASH = 8


def service_name(model: str, version: str, namespace: str) -> str:
    """The InferenceService's name: `<model>-<version>` where that is legal and unambiguous, else shortened with a hash.

    KServe wants [a-z]([-a-z0-9]*[a-z0-9])?. A version with a '-' could be read as part of the model's name, and
    what had to be rewritten could meet another: those get eight hexadecimal digits of the SHA-256 of both.
    """
    limit = HOST_LIMIT - len(f"-predictor-{namespace}")
    if limit < 2 + _HASH:
        raise LongshoreError(
            f"the namespace {namespace!r} is too long for KServe's host names", "use one of up to 40 characters"
        )
    plain = f"{model}-{version}"
    legal = re.sub(r"[^a-z0-9-]+", "-", plain.lower()).strip("-")
    legal = legal if legal[0].isalpha() else f"m-{legal}"
    if legal == plain and "-" not in version and len(plain) <= limit:
        return plain
    mark = hashlib.sha256(f"{model}:{version}".encode()).hexdigest()[:_HASH]
    return f"{legal[: limit - _HASH - 1].rstrip('-')}-{mark}"


def label_value(model: str) -> str:
    """A model's name as the value of a label, where '/' is not allowed; names have no '_' of their own."""
    return model.replace("/", "_")
