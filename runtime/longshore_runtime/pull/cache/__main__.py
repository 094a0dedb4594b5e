"""Looking at a node's cache: `python -m longshore_runtime.pull.cache ls [--json] | rm DIGEST`, in a container that has it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from longshore_runtime.errors import LongshoreError, NotFound, Refused
from longshore_runtime.progress import format_size
from longshore_runtime.pull.cache.entries import Entry, list_entries
from longshore_runtime.pull.cache.room import evict, prepare
from longshore_runtime.pull.cache.settings import ROOT, read_settings
from longshore_runtime.pull.cache.usage import find_users


def main(arguments: list[str]) -> int:
    """Do what is asked; returns the exit code."""
    parser = argparse.ArgumentParser("python -m longshore_runtime.pull.cache", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("ls", help="what is there, longest unused first").add_argument("--json", action="store_true")
    commands.add_parser("rm", help="remove what no pod uses").add_argument("digest", help="or how it begins")
    options = parser.parse_args(arguments)
    try:
        root = _find_root()
        if options.command == "rm":
            _remove(root, options.digest.removeprefix("sha256:"))
        else:
            _list(root, options.json)
    except LongshoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; run it as the user of the initializer", file=sys.stderr)
        return 1
    return 0


def _find_root() -> Path:
    settings = read_settings()
    if settings is None:
        raise NotFound("there is no cache here", f"set {ROOT} to the folder where its volume is mounted")
    prepare(settings.root)
    return settings.root


def _list(root: Path, as_json: bool) -> None:
    found = [_describe(root, entry) for entry in list_entries(root)]
    if as_json:
        print(json.dumps(found))
        return
    rows = [("DIGEST", "SIZE", "STATE", "UNUSED FOR", "PODS")]
    for one in found:
        unused = "" if one["pods"] else f"{one['unused'] / 3600:.1f} h"
        rows.append((one["digest"][:12], format_size(one["size"]), one["state"], unused, ", ".join(one["pods"])))
    for row in rows:
        print("   ".join(text.ljust(max(len(other[at]) for other in rows)) for at, text in enumerate(row)).rstrip())


def _describe(root: Path, entry: Entry) -> dict[str, Any]:
    return {
        "digest": entry.digest,
        "size": entry.size,
        "state": "whole" if entry.read_witness() else "partial",
        "unused": max(0, round(time.time() - entry.last_used)),
        "pods": find_users(root, entry.digest),
    }


def _remove(root: Path, digest: str) -> None:
    found = [entry for entry in list_entries(root) if digest and entry.digest.startswith(digest)]
    if len(found) != 1:
        raise NotFound(f"{len(found)} trees begin with {digest!r}", "see what there is: ls")
    if not evict(root, found[0]):
        pods = ", ".join(find_users(root, found[0].digest)) or "an initializer"
        raise Refused(f"{found[0].digest[:12]} is used by {pods}", "end those pods; an hour later it can be removed")
    print(f"{found[0].digest[:12]} removed")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
