"""What a store itself says of a version's files: the checksums that it keeps, held against the manifest; no file is read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from longshore import layout
from longshore.storage.port import Store
from longshore_runtime.manifest import File, Manifest
from longshore_runtime.pull.sources.port import Entry
from longshore_runtime.pull.verification import Finding, compare_listing

_PARALLEL = 16


@dataclass(frozen=True)
class Account:
    """`findings` are the files that are not as they were pushed, `silent` those of which the store keeps no checksum."""

    findings: list[Finding]
    silent: list[str]


def ask_store(store: Store, model: str, manifest: Manifest) -> Account:
    """Have the store account for the files of a version: one listing, and one request for each file.

    It finds what is missing, extra, cut short or replaced; what has rotted below a store that does not look at its disks is
    found by reading alone.
    """
    folder = layout.tree_folder(model, manifest.digest)
    listed = [Entry(stored.key.removeprefix(folder), stored.size) for stored in store.list_tree(folder)]
    findings = compare_listing(listed, manifest)
    named = {finding.path for finding in findings}
    files = [file for file in manifest.files if file.path not in named]

    def ask(file: File) -> bool | None:
        return store.vouches(layout.tree_key(model, manifest.digest, file.path), file)

    with ThreadPoolExecutor(_PARALLEL) as pool:
        verdicts = dict(zip((file.path for file in files), pool.map(ask, files), strict=True))
    findings += [
        Finding(path, "changed", "by the store's own checksum") for path, verdict in verdicts.items() if verdict is False
    ]
    silent = sorted(path for path, verdict in verdicts.items() if verdict is None)
    return Account(sorted(findings, key=lambda finding: finding.path), silent)
