"""What the launcher needs to know about an engine. Pure: nothing here starts or asks anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from longshore_runtime.errors import EngineFailed
from longshore_runtime.manifest import ModelFacts, Speculation
from longshore_runtime.serve.engines.support import Support
from longshore_runtime.serve.fit.geometry import Geometry
from longshore_runtime.serve.group import Group
from longshore_runtime.serve.host import Host


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter that is served beside its base, under a `name` of its own; `rank` is the largest in it.

    `digest` (hex) is its manifest's, None where it has none.
    """

    name: str
    folder: Path
    rank: int
    digest: str | None = None


@dataclass(frozen=True)
class Task:
    """What is to be served: the `model` folder under `name` at `host`:`port`, stopping within `grace` seconds.

    `arguments` are the version's and the user's own, in this order of precedence, for the engine as they are.
    `geometry` is the model in detail, where its files tell it. `adapters` are served with the model. `arrivals` tells an
    engine that waits for weights what has arrived. `draft` is the folder of the model that makes the guesses of a
    `speculation` that needs one. With `more_adapters` others may come while it runs. A `sleepable` engine can give its memory
    back for a while. Where what it compiles is `kept` for other starts, it may take its time for that. In a `group` several
    pods serve it together, and only the one that leads answers requests.
    """

    model: Path
    name: str
    facts: ModelFacts
    host: str
    port: int
    grace: int
    arguments: tuple[tuple[str, ...], ...] = ()
    geometry: Geometry | None = None
    adapters: tuple[Adapter, ...] = ()
    arrivals: Path | None = None
    speculation: Speculation | None = None
    draft: Path | None = None
    more_adapters: bool = False
    sleepable: bool = False
    kept: bool = False
    group: Group | None = None


Request = tuple[str, dict[str, object]]
"""A path of an engine's server, and what is posted to it."""


class AdapterChanges(Protocol):
    """How an engine loads and unloads adapters while it runs. `environment` lets it; the gate keeps others out."""

    environment: Mapping[str, str]

    def load(self, name: str, folder: Path, again: bool) -> Request:
        """To serve the adapter in the folder under a name; `again` where another is served under it now."""
        ...

    def unload(self, name: str) -> Request:
        """To serve it no longer."""
        ...


class SleepMode(Protocol):
    """How an engine gives the memory of its device back, and takes it again. `environment` lets it; the gate keeps others out.

    `question` is a path that tells, asked with GET, whether it sleeps.
    """

    environment: Mapping[str, str]
    sleep: Request
    wake: Request
    question: str

    def require(self, machine: Host) -> None:
        """Raise Refused where the engine cannot sleep on this machine."""
        ...

    def sleeps(self, answer: str) -> bool:
        """Whether it sleeps, by its answer to the question."""
        ...


class Figures(NamedTuple):
    """What an engine's own counters say: requests it has, requests that have ended, and what only its work changes."""

    owed: int = 0
    ended: int = 0
    progress: tuple[float, ...] = ()


class Engine(Protocol):
    """An inference server that speaks the OpenAI API. `health_path` and `metrics_path` are asked with GET.

    `caches` are the environment variables that say where it keeps what it compiles, each with a folder's name.
    `speculation` are the methods that it can be told to guess by (`manifest.Speculation`). `adapter_changes` is None where
    it takes no adapters while it runs, `sleep_mode` where it cannot sleep.
    """

    name: str
    health_path: str
    metrics_path: str
    caches: Mapping[str, str]
    speculation: frozenset[str]
    adapter_changes: AdapterChanges | None
    sleep_mode: SleepMode | None

    def require(self) -> None:
        """Raise EngineFailed, saying how to install it, when the engine is not on this machine."""
        ...

    def version(self) -> str:
        """The version that is installed."""
        ...

    def support(self) -> Support:
        """Which models the engine can serve, as of the version that this adapter was made for."""
        ...

    def check_arguments(self, arguments: Sequence[str]) -> None:
        """Raise LongshoreError for arguments that are none, or that set what the launcher must know."""
        ...

    def waits(self, task: Task) -> bool:
        """Whether the engine can be started before anything of the weights is there, their headers included.

        It must then look at nothing of the model before the account of what arrives has told of the preview, and read no
        weights that have not arrived.
        """
        ...

    def command(self, task: Task, machine: Host) -> list[str]:
        """The command that serves the task. Raises LongshoreError as `check_arguments` does."""
        ...

    def environment(self, machine: Host, inherited: Mapping[str, str]) -> dict[str, str]:
        """The engine's whole environment: offline, without credentials, `inherited` where it does no harm."""
        ...

    def prepare(self, machine: Host, environment: Mapping[str, str]) -> None:
        """Put in place what lets the engine start sooner; called once, with its whole environment, before it starts."""
        ...

    def phase_of(self, line: str) -> str | None:
        """What the engine is doing, when a line of its output tells."""
        ...

    def read_figures(self, metrics: str) -> Figures:
        """What the engine's metrics, as it exposes them, say of its work."""
        ...

    def diagnose(self, output: Sequence[str]) -> EngineFailed:
        """Why an engine that ended with this output did: one sentence, and what to do."""
        ...
