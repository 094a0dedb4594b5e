"""The file that says how a version wants to be served: `push --serve serve.yaml`."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from longshore_runtime.errors import LongshoreError
from longshore_runtime.manifest import Serving
from longshore_runtime.serve.engines import open_engine


def read_serving(path: Path) -> Serving:
    """The wishes in a YAML file; raises LongshoreError, naming the field, for what no engine could follow."""
    try:
        serving = Serving.model_validate(yaml.safe_load(path.read_text()) or {})
    except OSError as error:
        raise LongshoreError(f"cannot read {path}: {error.strerror}", "check the file's name") from error
    except yaml.YAMLError as error:
        raise LongshoreError(f"{path} is not valid YAML", "check its indentation and quotes") from error
    except ValidationError as error:
        flaw = error.errors()[0]
        field = ".".join(str(part) for part in flaw["loc"]) or "content"
        raise LongshoreError(
            f"{path} is not a serving file: {field}: {flaw['msg']}", "it has the fields engine (a name) and arguments (a list)"
        ) from error
    open_engine(serving.engine).check_arguments(serving.arguments)
    return serving
