"""A joblib backend: ``joblib.Parallel`` (and scikit-learn's ``n_jobs``) on the processes of an actorlib pool.

Example::

    register_actorlib()
    with joblib.parallel_config(backend="actorlib", n_jobs=-1):
        joblib.Parallel()(joblib.delayed(work)(i) for i in range(100))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import actorlib
from actorlib.util.multiprocessing import AsyncResult, Pool

try:
    from joblib.parallel import (
        AutoBatchingMixin,
        FallbackToBackend,
        ParallelBackendBase,
        SequentialBackend,
        register_parallel_backend,
    )
except ImportError as error:
    raise ImportError("actorlib.util.joblib needs joblib: pip install joblib") from error


class ActorlibBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs joblib's batches in a ``Pool``. ``ray_remote_args`` are options of the pool's actors."""

    supports_retrieve_callback = True
    supports_return_generator = True
    uses_threads = False
    supports_sharedmem = False

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
        **given: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **given)
        self._ray_remote_args = ray_remote_args
        self._n_jobs = 1
        self._pool: Pool | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """The number of processes for joblib's ``n_jobs``: -1 means all CPUs of the session, None one."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        if n_jobs > 0:
            return n_jobs
        if not actorlib.is_initialized():
            actorlib.init()
        cpus = int(actorlib.cluster_resources().get("CPU", 1))
        return max(1, cpus + 1 + n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Start the processes; one alone is left to joblib's sequential backend."""
        count = self.effective_n_jobs(n_jobs)
        if count == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._n_jobs = count
        self._pool = Pool(count, ray_remote_args=self._ray_remote_args)
        return count

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> AsyncResult:
        assert self._pool is not None, "joblib calls configure() first"
        return self._pool.apply_async(func, callback=callback, error_callback=callback)

    def retrieve_result_callback(self, out: Any) -> Any:
        """The result of a batch, from what its callback got."""
        if isinstance(out, BaseException):
            raise out
        return out

    def terminate(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.terminate()
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Something failed: drop the rest; start afresh if there is more to come."""
        self.terminate()
        if ensure_ready:
            self.configure(n_jobs=self._n_jobs, parallel=self.parallel)

    def __reduce__(self) -> Any:
        # joblib sends the backend along with nested calls; the pool stays here.
        return _rebuild_backend, (self.nesting_level, self.inner_max_num_threads, self._ray_remote_args)


def _rebuild_backend(
    nesting_level: int | None, inner_max_num_threads: int | None, ray_remote_args: Mapping[str, Any] | None
) -> ActorlibBackend:
    return ActorlibBackend(nesting_level, inner_max_num_threads, ray_remote_args)


def register_actorlib() -> None:
    """Make ``backend="actorlib"`` known to joblib."""
    register_parallel_backend("actorlib", ActorlibBackend)


def register_ray() -> None:
    """Make ``backend="ray"`` known too, for programs that were written for Ray."""
    register_actorlib()
    register_parallel_backend("ray", ActorlibBackend)


__all__ = ["ActorlibBackend", "register_actorlib", "register_ray"]
