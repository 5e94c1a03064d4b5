"""What is going on: a bar with study, stage and time left on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class Quiet:
    """Reports nothing; the pattern of the others."""

    def begin(self, title: str, total: int) -> None:
        """A piece of work of so many studies starts."""

    def note(self, subject: str, stage: str) -> None:
        """A study has come to a stage."""

    def advance(self, subject: str, words: str) -> None:
        """A study is done with this piece of work."""

    def end(self) -> None:
        """The piece of work is done."""

    def say(self, line: str) -> None:
        """One line for the reader."""


class Lines(Quiet):
    """Plain lines for files, pipes and continuous integration."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._title, self._total, self._done, self._start = "", 0, 0, 0.0

    def begin(self, title: str, total: int) -> None:
        self._title, self._total, self._done, self._start = title, total, 0, time.monotonic()

    def advance(self, subject: str, words: str) -> None:
        self._done += 1
        left = (time.monotonic() - self._start) / self._done * (self._total - self._done)
        tail = f", about {duration(left)} left" if self._done < self._total and left >= 1 else ""
        self.say(f"{self._title} {self._done}/{self._total} {subject}: {words}{tail}")

    def say(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class Bar(Quiet):
    """A progress bar on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[where]}"),
            console=self._console,
            transient=True,
        )
        self._task: Any = None

    def begin(self, title: str, total: int) -> None:
        self.end()
        self._task = self._bar.add_task(title, total=total, where="")
        self._bar.start()

    def note(self, subject: str, stage: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, where=f"{subject} {stage}".strip())

    def advance(self, subject: str, words: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, advance=1, where=f"{subject}: {words}"[:60])

    def end(self) -> None:
        if self._task is not None:
            self._bar.stop()
            self._bar.remove_task(self._task)
            self._task = None

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """``45 s``, ``12 min`` or ``3 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def shown(*, quiet: bool = False) -> Iterator[Quiet]:
    """The way to report that fits: nothing when quiet, a bar on a terminal, else lines; always closed."""
    progress: Quiet = Quiet() if quiet else Bar() if sys.stderr.isatty() else Lines()
    try:
        yield progress
    finally:
        progress.end()
