"""What a push makes of a check: errors stop it before anything is sent, warnings are said."""

from __future__ import annotations

from pathlib import Path

from longshore.check.findings import Finding
from longshore.check.inspection import check
from longshore.importing import ChosenFiles
from longshore_runtime.addresses import redact
from longshore_runtime.errors import InvalidModel, NotFound
from longshore_runtime.manifest import Serving
from longshore_runtime.progress import Progress
from longshore_runtime.pull.patterns import Patterns
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.verification import read_manifest

_SHOWN = 2


def require_servable(
    origin: Path | str, serving: Serving | None, base: str | None, patterns: Patterns, progress: Progress
) -> tuple[Finding, ...]:
    """The warnings about a tree, a directory or what lies at an address, that is to be pushed; `progress` hears them too.

    Raises InvalidModel when there are errors. Served as `serving` says, else as the version that lies at the address; an
    adapter on the `base` at this address.
    """
    address, local = str(origin), "://" not in str(origin)
    if local and not Path(origin).is_dir():
        return ()  # the push says what is wrong with it
    source = open_source(Path(origin).resolve().as_uri() if local else address)
    if not local and (manifest := read_manifest(source, source.digest)):
        if patterns:
            return ()  # the push says that a version is pushed whole
        serving = serving or manifest.serving
    try:
        report = check(ChosenFiles(source, patterns), serving, base=open_source(base) if base else None)
    except NotFound:
        return ()  # the push says what is missing
    warnings, name = report.of("warning"), redact(address)
    for finding in warnings:
        progress.say(f"warning: {finding} ({finding.code}); {finding.advice}")
    if errors := report.of("error"):
        named = "; ".join(f"{finding} ({finding.code})" for finding in errors[:_SHOWN])
        more = f"; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        raise InvalidModel(
            f"{name} could not be served: {named}{more}",
            f"{errors[0].advice}; see all: longshore check {name}, push it nevertheless: --no-check",
        )
    return warnings
