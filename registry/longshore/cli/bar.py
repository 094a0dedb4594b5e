"""Progress as a bar, for terminals."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


class Bar:
    """One bar per stage, with rate and time left."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress: Progress | None = None

    def begin(self, what: str, size: int) -> None:
        columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        self._progress = Progress(TextColumn("{task.description:>9}"), *columns, console=self._console)
        self._progress.start()
        self._progress.add_task(what, total=size)

    def advance(self, count: int) -> None:
        if self._progress is not None:
            self._progress.advance(self._progress.task_ids[0], count)

    def end(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = None

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)
