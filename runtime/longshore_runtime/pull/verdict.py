"""What a pull says when it is done."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Verified = Literal["digest", "manifest", "hub", "checksum", "size"]


@dataclass(frozen=True)
class Verdict:
    """What a pull did, and in `verified` against what the bytes were held.

    `digest`: a manifest whose own digest was expected; `manifest`: the one found beside the files; `hub`: the
    digests that a hub publishes of its files; `checksum`: the one that the address carried, or those that a store
    keeps of its objects; `size`: nothing but the sizes that the source listed, because it publishes no more.
    `revision` is the one that a hub was asked for.

    `cached` says that the tree was on the node already: its bytes were held against the digest when they arrived there
    and once since the node was started, and nothing was written to its files since (`reread`: they were read again now).
    `to_come` of its bytes are left for the launcher to pull beside the engine's start.
    `signed` names the key that vouches for the tree, where one was asked for.
    """

    source: str
    target: str
    digest: str | None
    revision: str | None
    verified: Verified
    files: int
    size: int
    fetched: int
    seconds: float
    cached: bool = False
    reread: bool = False
    signed: str | None = None
    to_come: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON: sizes in bytes."""
        return asdict(self)
