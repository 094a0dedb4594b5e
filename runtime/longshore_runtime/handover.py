"""What the initializer leaves for the main container when only the weights are still to come.

Everything else of the tree lies in the folder, verified. The document says what the rest must be, and how it is had without
credentials: by addresses that are signed for a while. They are secrets, so the file is readable by its owner alone, and it
goes when the last file is there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from longshore_runtime import paths
from longshore_runtime.errors import NotFound, StoreFailed
from longshore_runtime.handover_files import CERTIFICATES, HANDOVER
from longshore_runtime.manifest import Document, Manifest


class Loan(Document):
    """What opens files of a store without credentials: an address for each path, good `until` then (seconds since 1970).

    `settings` are variables, without any key, by which a process with credentials of its own reaches the same store.
    `certificates` is a file of authorities to trust.
    """

    addresses: dict[str, str]
    until: float
    settings: dict[str, str] = Field(default_factory=dict)
    certificates: str | None = None


class Handover(Document):
    """`source` is the tree's address, `verified` what its manifest was held against."""

    source: str
    verified: Literal["digest", "manifest"]
    manifest: Manifest
    loan: Loan

    @property
    def weights(self) -> dict[str, int]:
        """The files that are still to come, and their sizes in bytes."""
        return {file.path: file.size for file in self.manifest.files if file.path.endswith(paths.WEIGHT_SUFFIXES)}


def write_handover(folder: Path, handover: Handover) -> None:
    """Leave the document in a model's folder, readable by its owner alone from its first moment."""
    if handover.loan.certificates:
        (folder / CERTIFICATES).write_bytes(Path(handover.loan.certificates).read_bytes())
    draft = folder / f"{HANDOVER}.draft"
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(handover.model_dump_json(by_alias=True, exclude_none=True).encode())
    os.replace(draft, folder / HANDOVER)


def read_handover(folder: Path) -> Handover | None:
    """The document in a model's folder; None where nothing is to come. Raises StoreFailed when it cannot be read."""
    try:
        return Handover.model_validate(json.loads((folder / HANDOVER).read_bytes()))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise StoreFailed(
            f"{folder / HANDOVER} belongs to another user",
            "run both containers as one user, or have everything pulled before: --pull before",
        ) from error
    except (ValidationError, ValueError, OSError) as error:
        raise StoreFailed(
            f"{folder / HANDOVER} is damaged", "delete the pod: the next one's initializer writes it anew"
        ) from error


def require_handover(folder: Path) -> Handover:
    """The same where there must be one."""
    if (found := read_handover(folder)) is None:
        raise NotFound(f"nothing is still to come into {folder}", "pull it: python -m longshore_runtime.pull SOURCE FOLDER")
    return found
