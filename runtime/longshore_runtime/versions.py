"""Where a registry keeps its versions, and the record that commits one: what a push writes and a pod reads.

<model>/versions/<version>.json          the commit
<model>/trees/<digest>/…                 the files, and `.longshore/manifest.json`
<model>/deletions/<version>/<n>.json     the n-th change of whether the version is deleted: odd ones delete, even ones restore

Keys are relative to the registry's root.
"""

from __future__ import annotations

import json
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from longshore_runtime.errors import Corrupt, Refused
from longshore_runtime.manifest import Hex

SCHEMA = 1


def version_key(model: str, version: str) -> str:
    """The record that commits a version."""
    return f"{model}/versions/{version}.json"


def tree_folder(model: str, digest: str) -> str:
    """The folder of a version's files."""
    return f"{model}/trees/{digest}/"


def deletions_folder(model: str, version: str = "") -> str:
    """The folder of a version's deletions and restorations; of all, without a version."""
    return f"{model}/deletions/{version}/" if version else f"{model}/deletions/"


class Record(BaseModel):
    """A document with a schema number; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Annotated[int, Field(alias="schema")] = SCHEMA

    def encode(self) -> bytes:
        """The bytes to store."""
        content = self.model_dump(by_alias=True, exclude_none=True)
        return json.dumps(content, ensure_ascii=False, sort_keys=True, indent=1).encode()

    @classmethod
    def parse(cls, data: bytes, key: str) -> Self:
        """The record in `data`; raises Refused for a newer schema and Corrupt for anything else unreadable."""
        try:
            content = json.loads(data)
            if isinstance(content, dict) and isinstance(schema := content.get("schema"), int) and schema > SCHEMA:
                raise Refused(f"{key} has schema {schema}, newer than this Longshore", "use a newer Longshore")
            return cls.model_validate(content)
        except (ValueError, ValidationError, RecursionError) as error:
            raise Corrupt(f"{key} in the registry is not a valid record", "restore the object from a backup") from error


class VersionRecord(Record):
    """The commit of a version. `created` is UTC, `by` who pushed, `digest` hex."""

    digest: Hex
    created: str
    by: str
    message: str | None = None
