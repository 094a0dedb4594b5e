"""Several pods that serve one model together, as LeaderWorkerSet says in the environment of each. Pure.

LeaderWorkerSet (which LLMInferenceService makes for a model over several nodes) sets three variables in every container:
https://lws.sigs.k8s.io/docs/reference/labels-annotations-and-environment-variables/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from longshore_runtime.errors import LongshoreError

LEADER, SIZE, INDEX = "LWS_LEADER_ADDRESS", "LWS_GROUP_SIZE", "LWS_WORKER_INDEX"


@dataclass(frozen=True)
class Group:
    """`size` pods, of which this is the one of `index`: 0 leads, at the address `leader`, and answers all requests."""

    leader: str
    size: int
    index: int

    @property
    def leads(self) -> bool:
        """Whether this pod answers requests; the others compute for it."""
        return self.index == 0


def read_group(environment: Mapping[str, str]) -> Group | None:
    """The group that this pod belongs to, None where it is alone. Raises LongshoreError for variables that make no sense."""
    told = {name: environment.get(name, "") for name in (LEADER, SIZE, INDEX)}
    if not told[LEADER] or told[SIZE] in ("", "1"):
        return None
    size, index = (int(told[name]) if told[name].isdecimal() else -1 for name in (SIZE, INDEX))
    if not 0 <= index < size:
        described = ", ".join(f"{name}={text!r}" for name, text in told.items())
        raise LongshoreError(
            f"the pods that serve together are not numbered: {described}", f"set all three, {INDEX} from 0 to {SIZE} - 1"
        )
    return Group(told[LEADER], size, index)
