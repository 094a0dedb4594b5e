"""A model's folder as the launcher finds it: pulled with a manifest, or plain."""

from __future__ import annotations

from pathlib import Path

from longshore_runtime import paths, tree
from longshore_runtime.errors import InvalidModel
from longshore_runtime.manifest import ModelFacts, Serving, parse
from longshore_runtime.serve.facts import read_facts
from longshore_runtime.serve.fit.geometry import Geometry
from longshore_runtime.serve.fit.reading import read_geometry
from longshore_runtime.serve.folder import Folder


def read_model(directory: Path) -> tuple[ModelFacts, Serving]:
    """The facts and the serving wishes of the model in `directory`: from its manifest, or from its files alone."""
    manifest = directory / paths.MANIFEST
    if manifest.is_file():
        content = parse(manifest.read_bytes(), str(manifest))
        return content.model, content.serving
    return read_facts({file.path: file.location for file in tree.scan(directory)}), Serving()


def read_shape(directory: Path) -> Geometry | None:
    """The geometry of the model in `directory`, None where its files do not tell it: the engine then judges for itself."""
    try:
        return read_geometry(Folder(directory))
    except InvalidModel:
        return None
