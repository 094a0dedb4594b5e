"""Longshore: the bucket is the model registry, KServe is the fleet.

from longshore import Registry

registry = Registry("s3://models/prod")
version = registry.push(Path("./llama3"), "llama3:7", alias="prod")
registry.resolve("llama3@prod").uri
"""

from typing import TYPE_CHECKING

from longshore._version import __version__

if TYPE_CHECKING:
    from longshore.registry import Registry as Registry

__all__ = ["Registry", "__version__"]


def __getattr__(name: str) -> object:
    # Imported when it is asked for: `longshore --help` must not pay for boto3 and pydantic.
    if name == "Registry":
        from longshore.registry import Registry

        return Registry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
