"""What a stage costs in time and memory. It goes to the log alone, the one place that knows times."""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """Cost of one stage."""

    subject: str
    stage: str
    seconds: float
    peak_mb: float


def reset_peak() -> None:
    """Start counting peak memory anew (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        log.debug("peak memory counts from the start of the process here")


def peak_mb() -> float:
    """Peak resident memory of this process since :func:`reset_peak`."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def log_timing(folder: Path, timing: Timing) -> None:
    """Append a stage's cost to ``timings.csv`` in the folder of the log."""
    path = folder / "timings.csv"
    new = not path.is_file()
    with open(path, "a", newline="", encoding="utf-8") as handle:
        out = csv.writer(handle)
        if new:
            out.writerow(["when", "subject", "stage", "seconds", "peak_mb"])
        when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        out.writerow([when, timing.subject, timing.stage, f"{timing.seconds:.2f}", f"{timing.peak_mb:.0f}"])
