"""A tree of the cache as a pod sees it: a folder of links to the tree's files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from longshore_runtime import paths
from longshore_runtime.errors import Refused


def admit(files: Collection[str], target: Path, others: Collection[Path], uri: str) -> None:
    """Raise Refused when the folder holds what the tree does not: the engine might read it.

    The same when the tree has files where another tree goes, or a folder stands in a file's place.
    """
    elsewhere = tuple(f"{other.relative_to(target)}/" for other in others if target in other.parents)
    if intruders := sorted(path for path in files if f"{path}/".startswith(elsewhere)):
        raise Refused(f"{intruders[0]!r} of {uri} lies where something else is pulled to", "choose other folders")
    for folder, folders, names in os.walk(target):
        prefix = f"{Path(folder).relative_to(target)}/".removeprefix("./")
        folders[:] = [name for name in folders if not f"{prefix}{name}/".startswith((*elsewhere, f"{paths.METADATA}/"))]
        links = [name for name in folders if Path(folder, name).is_symlink()]
        if strangers := sorted(prefix + name for name in (*names, *links) if prefix + name not in files):
            raise Refused(f"{target} already holds {strangers[0]!r}, which {uri} does not have", "pull into an empty folder")
        if blocking := sorted(prefix + name for name in folders if prefix + name in files):
            raise Refused(f"{target / blocking[0]} is in the way", "pull into an empty folder")


def link_tree(tree: Path, files: Collection[str], target: Path) -> None:
    """Put a link to each of the tree's files, and last to its manifest, into `target`; replaces what has their names."""
    draft = target / paths.METADATA / "link.draft"
    draft.parent.mkdir(parents=True, exist_ok=True)
    for path in (*sorted(set(files) - {paths.MANIFEST}), paths.MANIFEST):
        final = target / path
        final.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        draft.symlink_to(tree / path)
        os.replace(draft, final)
    for left in ("partial", "journal"):  # of a start without the cache
        shutil.rmtree(target / paths.METADATA / left, ignore_errors=True)


def unlink_tree(root: Path, target: Path) -> None:
    """Remove what an earlier start linked into `target` from the cache at `root`."""
    for folder, folders, names in os.walk(target):
        for name in (*folders, *names):
            path = Path(folder, name)
            if path.is_symlink() and path.readlink().is_relative_to(root):
                path.unlink()
