"""The small immutable documents that a registry commits, and how they are written down."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from longshore_runtime.errors import Corrupt, Refused
from longshore_runtime.manifest import Hex

SCHEMA = 1


def now() -> str:
    """The present moment in UTC to the microsecond, as records spell it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


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
        except (ValueError, ValidationError) as error:
            raise Corrupt(f"{key} in the registry is not a valid record", "restore the object from a backup") from error


class VersionRecord(Record):
    """The commit of a version. `created` is UTC, `by` who pushed, `digest` hex."""

    digest: Hex
    created: str
    by: str
    message: str | None = None


class Move(Record):
    """One move of an alias. `previous` is the number of the move that a rollback of this one restores.

    A `protected` alias moves only when whoever moves it says so twice; each move carries it on to the next.
    """

    version: str
    digest: Hex
    at: str
    by: str
    reason: str | None = None
    previous: int | None = None
    protected: Literal[True] | None = None
