"""Where a hand-over lies in a model's folder, and how it is taken away: what needs no reading of it."""

from __future__ import annotations

import shutil
from pathlib import Path

from longshore_runtime import paths

HANDOVER = f"{paths.METADATA}/handover.json"
CERTIFICATES = f"{paths.METADATA}/handover.pem"
"""The authorities that the store's certificate is held against, where the initializer was given some."""

PREVIEW = f"{paths.METADATA}/preview"
"""A folder that an engine may be started on: links to what is there, and of weights that are still to come their heads."""


def forget_handover(folder: Path) -> None:
    """Take away all that belongs to an earlier pull in two steps."""
    remove_handover(folder)
    shutil.rmtree(folder / PREVIEW, ignore_errors=True)


def remove_handover(folder: Path) -> None:
    """Take the document away, and its secrets with it."""
    for name in (HANDOVER, f"{HANDOVER}.draft", CERTIFICATES):
        (folder / name).unlink(missing_ok=True)
