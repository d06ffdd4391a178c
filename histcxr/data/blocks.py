"""Blocks of items, worked at by threads of this machine or by the workers of a Dask cluster, in order."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import joblib

if TYPE_CHECKING:
    from distributed import Client

#: What is said of an item that ended one worker process of a cluster after another.
DIED: Final = "the worker process that had it ended, again and again"


class Job(Protocol):
    """What is done with a block. It can be pickled: that is how it travels to the workers of a cluster."""

    def __call__(self, items: Sequence[Any], careful: bool = False) -> list[Any]:
        """Return one result for each item, in order; the same for the same items, wherever that is.

        ``careful``: one of them may have ended a worker process.
        """

    def lost(self, item: Any) -> Any:
        """Return the result of an item that ended one worker process after another."""


def work(
    job: Job, blocks: Iterable[Sequence[Any]], n_jobs: int, client: Client | None
) -> Iterator[list[Any]]:
    """Yield the results of blocks in order, by ``n_jobs`` threads or a ``client``'s workers; few are in flight."""
    if client is not None:
        from histcxr.data.cluster import Cluster  # Dask is an extra

        with Cluster(client, job) as cluster:
            yield from cluster.in_order(blocks)
        return
    results = joblib.Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(
        joblib.delayed(job)(block) for block in blocks
    )
    try:
        # Not "yield from": that would close the results before they can be closed in silence.
        for done in results:  # noqa: UP028
            yield done
    finally:
        with warnings.catch_warnings():
            # After an error or Ctrl-C: that the rest was not used is no news.
            warnings.filterwarnings("ignore", ".*tasks (have been|which were)", UserWarning)
            results.close()


def fits_on(client: Client | None) -> contextlib.AbstractContextManager[Any]:
    """Inside, joblib and scikit-learn fit on the workers of a Dask cluster; on this machine without a ``client``."""
    return contextlib.nullcontext() if client is None else joblib.parallel_config("dask", client=client)
