"""The manifest: what a version is, in one canonical document whose SHA-256 is the version's digest.

Schema 1. The canonical form is JSON in UTF-8 without spaces, keys sorted, absent values left out,
files sorted by path, numbers only whole. A reader accepts exactly that form, so one document has one
digest; `parse` refuses a schema that is newer than this code rather than guess at its meaning.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from longshore_runtime import paths
from longshore_runtime.chunks import CHUNK_SIZE
from longshore_runtime.digests import digest_bytes
from longshore_runtime.errors import Corrupt, Refused

SCHEMA = 1

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, strict=True)]


class Document(BaseModel):
    """A frozen, strict part of a manifest: an unknown or mistyped field is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class File(Document):
    """One file: `size` in bytes, SHA-256 of the whole, BLAKE3 of each chunk (the last one may be short).

    `crc64nvme` is what stores compute of an object by themselves, so that it can be checked where it lies without being
    read: CRC-64/NVME of the whole, 16 hexadecimal digits.
    """

    path: str
    size: Count
    sha256: Hex
    crc64nvme: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    blake3: tuple[Hex, ...]

    @model_validator(mode="after")
    def _check_path(self) -> Self:
        if flaw := paths.find_flaw(self.path):
            raise ValueError(f"the path {self.path!r} is refused: {flaw}")
        return self


class ModelFacts(Document):
    """What the files say of the model. Counts are of tensors' elements, layers, heads, tokens; None where unknown.

    `base_model` is what an adapter's own configuration calls its base, `adapter_rank` the largest rank in it.
    """

    architecture: str | None = None
    model_type: str | None = None
    parameters: Count | None = None
    weight_bytes: Count = 0
    dtype: str | None = None
    quantization: str | None = None
    context_length: Count | None = None
    hidden_size: Count | None = None
    layers: Count | None = None
    attention_heads: Count | None = None
    kv_heads: Count | None = None
    head_dim: Count | None = None
    vocabulary_size: Count | None = None
    chat_template: bool = False
    base_model: str | None = None
    adapter_rank: Count | None = None


class ScalingDefaults(Document):
    """How many pods a deployment of the version has where it says nothing else, and what their number follows.

    `target` is per pod: requests waiting for `queue`, percent of the CPU for `cpu`.
    """

    min: Count | None = None
    max: Annotated[int, Field(ge=1, strict=True)] | None = None
    metric: Literal["queue", "cpu"] | None = None
    target: Annotated[int, Field(ge=1, strict=True)] | None = None


class Speculation(Document):
    """How the engine guesses `tokens` ahead, which the model confirms or not, all at once: the same answers, sooner.

    `ngram` finds its guesses in what was said so far. `draft`, a small model of its own with the same vocabulary, `eagle` and
    `eagle3`, heads that were trained for the model, are a second model: the version's `draft`.
    """

    method: Literal["ngram", "draft", "eagle", "eagle3"]
    tokens: Annotated[int, Field(ge=1, le=64, strict=True)] = 3

    @property
    def needs_draft(self) -> bool:
        """Whether a second model makes the guesses."""
        return self.method != "ngram"


class Serving(Document):
    """How the version asks to be served: the engine's name and arguments that the engine gets as they are.

    `gpus` per pod (0: the CPU) and `scaling` are defaults, which a deployment may override without a new version.
    """

    engine: str = "vllm"
    arguments: tuple[str, ...] = ()
    gpus: Count | None = None
    scaling: ScalingDefaults | None = None
    speculative: Speculation | None = None


class Origin(Document):
    """Where the files came from: a URI without secrets, the revision found there, the licence's SPDX name."""

    uri: str
    revision: str | None = None
    licence: str | None = None


class Base(Document):
    """A version that another needs, in the same registry: pinned by its digest, `version` as it was called then."""

    model: str
    version: str
    digest: Hex

    @property
    def reference(self) -> str:
        """`model:version`."""
        return f"{self.model}:{self.version}"


class Manifest(Document):
    """A version's content. Build one from digested files in any order; it keeps them sorted by path.

    `base` is what an adapter adds to, `draft` the second model that guesses for this one.
    """

    schema_version: Annotated[int, Field(alias="schema", strict=True, ge=1, le=SCHEMA)] = SCHEMA
    chunk_size: Annotated[int, Field(strict=True, ge=4096, le=1 << 30)] = CHUNK_SIZE
    files: tuple[File, ...]
    model: ModelFacts = ModelFacts()
    serving: Serving = Serving()
    source: Origin | None = None
    base: Base | None = None
    draft: Base | None = None

    @model_validator(mode="before")
    @classmethod
    def _sort_files(cls, data: Any) -> Any:
        files = data.get("files") if isinstance(data, dict) else None
        if isinstance(files, (list, tuple)) and all(isinstance(file, File) for file in files):
            return {**data, "files": tuple(sorted(files, key=lambda file: file.path))}
        return data

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if collision := paths.find_collision(file.path for file in self.files):
            raise ValueError(f"the paths {collision[0]!r} and {collision[1]!r} cannot lie on every disk together")
        if [file.path for file in self.files] != sorted(file.path for file in self.files):
            raise ValueError("the files are not sorted by path")
        for file in self.files:
            if len(file.blake3) != -(-file.size // self.chunk_size):
                raise ValueError(f"{file.path!r} has {len(file.blake3)} chunk digests for {file.size} bytes")
        return self

    @property
    def needs(self) -> tuple[Base, ...]:
        """The versions without which this one cannot be served."""
        return tuple(needed for needed in (self.base, self.draft) if needed)

    @property
    def size(self) -> int:
        """The bytes of all files together."""
        return sum(file.size for file in self.files)

    def encode(self) -> bytes:
        """The canonical bytes."""
        content = self.model_dump(by_alias=True, exclude_none=True)
        return json.dumps(content, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """The SHA-256 of the canonical bytes, in hex: the version's digest."""
        return digest_bytes(self.encode())

    def has_content_of(self, other: Manifest) -> bool:
        """Whether both describe the same files served the same way, on the same base and with the same draft.

        Two releases of Longshore may read different facts out of the same files; that is not another content.
        """
        same_files = [(f.path, f.size, f.sha256) for f in self.files] == [(f.path, f.size, f.sha256) for f in other.files]
        same_needs = [_digest_of(self.base), _digest_of(self.draft)] == [_digest_of(other.base), _digest_of(other.draft)]
        return same_files and same_needs and self.serving == other.serving


def _digest_of(needed: Base | None) -> str | None:
    return needed.digest if needed else None


def parse(data: bytes, name: str = "the manifest") -> Manifest:
    """The manifest in `data`. Raises Refused for a newer schema and Corrupt for anything else that is not canonical."""
    try:
        content = json.loads(data)
        schema = content.get("schema") if isinstance(content, dict) else None
        if isinstance(schema, int) and schema > SCHEMA:
            raise Refused(
                f"{name} has schema {schema}, and this Longshore reads up to {SCHEMA}",
                "use a newer Longshore for this version",
            )
        manifest = Manifest.model_validate(content)
        canonical = manifest.encode()
    except ValidationError as error:
        flaw = error.errors()[0]
        where = ".".join(str(part) for part in flaw["loc"]) or "content"
        raise Corrupt(f"{name} is not valid: {where}: {flaw['msg']}", "push the version again") from error
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{name} is not valid JSON", "push the version again") from error
    if canonical != data:
        raise Corrupt(f"{name} is not in canonical form", "push the version again")
    return manifest
