"""A version on this machine, the way a pod would have it: pulled and verified into a folder, then served by an engine."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from longshore.adapters import Part, pull_together
from longshore_runtime.errors import EngineFailed
from longshore_runtime.manifest import Serving
from longshore_runtime.progress import Progress
from longshore_runtime.pull.verdict import Verdict
from longshore_runtime.serve.engines import ENGINES, choose_engine, open_engine
from longshore_runtime.serve.engines.port import Task
from longshore_runtime.serve.launcher import Launcher
from longshore_runtime.serve.model import choose_draft, find_site, read_adapter, read_model, read_shape, require_fitting_heads
from longshore_runtime.serve.ports import require_free_port

START_DEADLINE = 900.0
"""Seconds until an engine on this machine is given up."""


@dataclass(frozen=True)
class Run:
    """What to run: `base` with `others`, its draft and its adapters, on `host`:`port`. `folder` keeps the files, if given.

    Adapters that appear in `adapters_dir` while it runs are served too. `engine` is the name of the one that serves the base,
    None where only its files will tell.
    """

    base: Part
    host: str
    port: int
    folder: Path | None = None
    arguments: tuple[str, ...] = ()
    others: tuple[Part, ...] = ()
    grace: int = 30
    adapters_dir: Path | None = None
    engine: str | None = None


@dataclass
class Served:
    """A running engine: `chat` says whether the model has a chat template, `verdicts` how the files were verified."""

    run: Run
    verdicts: list[Verdict]
    chat: bool
    launcher: Launcher = field(repr=False)

    @property
    def address(self) -> str:
        """The base URL of the OpenAI API."""
        return f"http://{self.run.host}:{self.run.port}/v1"


@contextmanager
def serve(run: Run, cache: Path, progress: Progress, log: TextIO | None = None) -> Iterator[Served]:
    """Pull, start, wait until a request was answered; on leaving, drain the engine and remove what was made.

    What is certain to fail is noticed before anything is pulled. Raises LongshoreError.
    """
    require_free_port(run.host, run.port)
    with _folder(run, cache) as folder:
        _require_engine(run)
        verdicts = pull_together((run.base, *run.others), folder, progress)
        launcher = _make_launcher(run, folder, progress, log)
        try:
            launcher.start()
            launcher.wait_ready(START_DEADLINE)
            yield Served(run, verdicts, launcher.chats, launcher)
        finally:
            launcher.stop()


def _make_launcher(run: Run, folder: Path, progress: Progress, log: TextIO | None) -> Launcher:
    """The launcher of what was pulled into a folder."""
    facts, serving = read_model(folder)
    adapters = [read_adapter(part.name, folder / part.place) for part in run.others if part.role == "adapter"]
    draft = next((folder / part.place for part in run.others if part.role == "draft"), None)
    engine = open_engine(choose_engine(serving, facts))
    speculation, draft = choose_draft(serving, engine.speculation, draft)
    require_fitting_heads(facts, speculation, draft)
    task = Task(
        model=folder,
        name=run.base.name,
        facts=facts,
        host=run.host,
        port=run.port,
        grace=run.grace,
        arguments=(serving.arguments, *(wish.arguments for _, wish in adapters), run.arguments),
        geometry=read_shape(folder, draft),
        adapters=tuple(adapter for adapter, _ in adapters),
        speculation=speculation,
        draft=draft,
        more_adapters=run.adapters_dir is not None,
    )
    return Launcher(engine, task, progress.say, log, site=find_site(run.adapters_dir, folder))


def _require_engine(run: Run) -> None:
    """Raise EngineFailed where the engine is not installed, or none is, and LongshoreError for arguments that it refuses."""
    open_engine(run.engine or Serving().engine).check_arguments(run.arguments)
    if run.engine is not None:
        return open_engine(run.engine).require()
    failures = []
    for name in ENGINES:
        try:
            return open_engine(name).require()
        except EngineFailed as failure:
            failures.append(failure)
    raise failures[0]


@contextmanager
def _folder(run: Run, cache: Path) -> Iterator[Path]:
    """The folder that plays /mnt/models: the one that was asked for, or a fresh one that is removed afterwards."""
    if run.folder is not None:
        yield run.folder
        return
    runs = cache / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    _sweep(runs)
    made = Path(tempfile.mkdtemp(dir=runs))
    try:
        with open(made / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield made / "models"
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _sweep(runs: Path) -> None:
    """Remove the folders of runs that were killed: those whose lock nobody holds."""
    for folder in runs.iterdir():
        with suppress(OSError), open(folder / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
