"""What of the launcher's environment is for pulls alone; no engine gets it."""

from __future__ import annotations

import re
from collections.abc import Mapping

_CREDENTIALS = re.compile(r"^(AWS_.*|HF_TOKEN|HUGGING_FACE_HUB_TOKEN|MODELSCOPE_API_TOKEN|STORAGE_.*CONFIG)$")


def without_credentials(inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment without what only a pull needs."""
    return {name: value for name, value in inherited.items() if not _CREDENTIALS.match(name)}
