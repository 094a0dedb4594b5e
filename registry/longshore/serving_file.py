"""The file that says how a version wants to be served: `push --serve serve.yaml`.

It has the fields of `manifest.Serving`, `base` for an adapter and `speculative.model` for a draft; it becomes part of the
version's digest.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ValidationError

from longshore.drafts import require_draft
from longshore_runtime.errors import LongshoreError
from longshore_runtime.manifest import ScalingDefaults, Serving, Speculation
from longshore_runtime.serve.engines import open_engine
from longshore_runtime.serve.options import Option, group_options


class SpeculationInFile(Speculation):
    """How to guess, and the reference of the `model` that does, where one does."""

    model: str | None = None


class ServingFile(Serving):
    """What the file may say: how to serve the version, and for an adapter the reference of its `base`."""

    speculative: SpeculationInFile | None = None
    base: str | None = None


class Wishes(NamedTuple):
    """What a file says: how to serve the version, and the references of its base and its draft."""

    serving: Serving | None = None
    base: str | None = None
    draft: str | None = None


_PARTS: dict[str, type[BaseModel]] = {"": ServingFile, "scaling": ScalingDefaults, "speculative": SpeculationInFile}
"""The model of each level of the file."""


def read_serving_file(path: Path) -> Wishes:
    """The wishes in a YAML file; raises LongshoreError, naming the field, for what no engine could follow."""
    try:
        content = ServingFile.model_validate(_load(path))
    except ValidationError as error:
        raise _explain(path, error) from error
    serving = Serving.model_validate(content.model_dump(exclude={"base": True, "speculative": {"model"}}))
    draft = content.speculative.model if content.speculative else None
    engine = open_engine(serving.engine)
    engine.check_arguments(serving.arguments)
    if serving.speculative and serving.speculative.method not in engine.speculation:
        known = ", ".join(sorted(engine.speculation)) or "no way to"
        raise LongshoreError(f"{path}: {engine.name} cannot guess by {serving.speculative.method}", f"it has {known}")
    require_draft(serving, draft)
    if conflict := find_conflict(serving):
        raise LongshoreError(f"{path} contradicts itself: {conflict}", "keep one of the two")
    return Wishes(serving, content.base, draft)


def find_conflict(serving: Serving) -> str | None:
    """Two wishes that cannot both be followed, or None. Pure."""
    options = group_options(serving.arguments)
    values: dict[str, tuple[str, ...]] = {}
    for option in options:
        if values.setdefault(option.name, option.tokens) != option.tokens:
            return f"{' '.join(values[option.name])} and {' '.join(option.tokens)}"
    wanted = _size(options, "tensor-parallel-size") * _size(options, "pipeline-parallel-size")
    if serving.gpus is not None and wanted > max(serving.gpus, 1):
        return f"the arguments spread the model over {wanted} GPUs and gpus is {serving.gpus}"
    if serving.speculative and "speculative-config" in values:
        return f"speculative and {' '.join(values['speculative-config'])}"
    scaling = serving.scaling
    if scaling and scaling.min is not None and scaling.max is not None and scaling.min > scaling.max:
        return f"scaling.min {scaling.min} is more than scaling.max {scaling.max}"
    if scaling and scaling.metric == "cpu" and scaling.min == 0:
        return "scaling.min 0 and scaling.metric cpu: where there are no pods there is no CPU to follow"
    return None


def _size(options: list[Option], name: str) -> int:
    """The number that an option gives, 1 where there is none."""
    for option in options:
        if option.name == name:
            text = option.tokens[0].partition("=")[2] or (option.tokens[1] if len(option.tokens) > 1 else "")
            return int(text) if text.isdecimal() else 1
    return 1


def _load(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise LongshoreError(f"cannot read {path}: {error.strerror}", "check the file's name") from error
    except UnicodeDecodeError as error:
        raise LongshoreError(f"{path} is not UTF-8 text", "name the YAML file that says how to serve the version") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise LongshoreError(f"{path} is not valid YAML{where}", "check its indentation and quotes") from error


def _explain(path: Path, error: ValidationError) -> LongshoreError:
    """The first flaw as one sentence; for a field that there is not, the one that may be meant."""
    flaw = error.errors()[0]
    place = [str(part) for part in flaw["loc"]]
    field = ".".join(place) or "content"
    known = list(_PARTS.get(".".join(place[:-1]), ServingFile).model_fields)
    if flaw["type"] == "extra_forbidden":
        close = get_close_matches(place[-1], known, n=1)
        advice = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
        return LongshoreError(f"{path} has a field {field}, which means nothing", advice)
    if flaw["type"] in ("model_type", "model_attributes_type"):
        parts = ", ".join(_PARTS.get(".".join(place), ServingFile).model_fields)
        return LongshoreError(f"{path} is not a serving file: {field} should have fields of its own", f"there are: {parts}")
    return LongshoreError(
        f"{path} is not a serving file: {field}: {flaw['msg']}", f"its fields are {', '.join(_PARTS[''].model_fields)}"
    )
