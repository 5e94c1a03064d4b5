"""Where studies are worked on: in this process, in local worker processes, or on a cluster that exists.

dask.distributed carries the work, since a worker that dies costs its own study alone. Workers run one
thread each, so that two never multiply into four, and hold to a memory limit.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.settings import RunSettings
from shapemodel.reasons import InputError

log = logging.getLogger(__name__)

TOPIC = "shapemodel-stage"
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    "VTK_SMP_MAX_THREADS",
)
CONNECT_SECONDS = 20
DEATH_SECONDS = 60
"""A worker that has lost its scheduler for so long ends itself."""

Note = Callable[[str, str], None]


@dataclass(frozen=True)
class Failure:
    """A task whose worker died under it, most often of memory."""

    message: str


class Pool(Protocol):
    """Runs one function on many items."""

    def map(self, function: Callable[..., Any], items: Sequence[Any], note: Note) -> Iterator[tuple[Any, Any]]:
        """Yield (item, result) as they end; a worker's death gives a :class:`Failure`, an exception goes up."""


class InProcess:
    """One study after the other, here."""

    def map(self, function: Callable[..., Any], items: Sequence[Any], note: Note) -> Iterator[tuple[Any, Any]]:
        """See :class:`Pool`."""
        for item in items:
            yield item, function(item, note)


class Distributed:
    """Studies on the workers of a dask cluster."""

    def __init__(self, client: Any):
        self._client = client

    def map(self, function: Callable[..., Any], items: Sequence[Any], note: Note) -> Iterator[tuple[Any, Any]]:
        """See :class:`Pool`."""
        from distributed import KilledWorker, as_completed

        self._client.subscribe_topic(TOPIC, lambda event: note(*event[1]))
        futures = {self._client.submit(_on_worker, function, item, pure=False): item for item in items}
        try:
            for future in as_completed(list(futures)):
                item = futures.pop(future)
                try:
                    yield item, future.result()
                except KilledWorker as error:
                    yield item, Failure(str(error))
        finally:
            self._client.cancel(list(futures), force=True)
            self._client.unsubscribe_topic(TOPIC)


def _on_worker(function: Callable[..., Any], item: Any) -> Any:
    from distributed import get_worker

    worker = get_worker()
    return function(item, lambda subject, stage: worker.log_event(TOPIC, (subject, stage)))


def n_workers(settings: RunSettings) -> int:
    """Workers asked for; 0 means one for each core that this process may use."""
    return settings.workers or len(os.sched_getaffinity(0))


@contextmanager
def opened(settings: RunSettings, items: int) -> Iterator[Pool]:
    """The pool that the settings ask for; closed with its processes at the end, also after Ctrl-C."""
    count = min(n_workers(settings), max(items, 1))
    if settings.scheduler:
        with _existing(settings.scheduler) as client:
            yield Distributed(client)
    elif count == 1:
        yield InProcess()
    else:
        with _local(count, settings.memory_gb) as client:
            yield Distributed(client)


@contextmanager
def _existing(address: str) -> Iterator[Any]:
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(f"--scheduler {address}: no dask scheduler answers there ({error})") from error
    with client:
        yield client


@contextmanager
def _local(count: int, memory_gb: float) -> Iterator[Any]:
    import dask
    from distributed import Client, LocalCluster

    config = {
        "distributed.scheduler.allowed-failures": 1,
        "distributed.scheduler.worker-saturation": 1.0,
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(THREAD_VARIABLES, "1"),
        "distributed.admin.log-format": "%(message)s",
    }
    with (
        dask.config.set(config),
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            memory_limit=int(memory_gb * 1e9),
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            silence_logs=logging.CRITICAL,
            death_timeout=DEATH_SECONDS,
        ) as cluster,
        Client(cluster, timeout=CONNECT_SECONDS) as client,
    ):
        yield client
