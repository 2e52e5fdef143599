"""What code can ask about where it runs."""

from __future__ import annotations

from typing import Any

from actorlib import engine as _engine


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


class RuntimeContext:
    """Answers for the task, actor or driver that asks."""

    def _get(self, name: str) -> Any:
        return _engine.current().context()[name]

    def get_job_id(self) -> str:
        return self._get("job_id").hex()  # type: ignore[no-any-return]

    def get_node_id(self) -> str:
        return self._get("node_id").hex()  # type: ignore[no-any-return]

    def get_worker_id(self) -> str:
        return self._get("worker_id").hex()  # type: ignore[no-any-return]

    def get_task_id(self) -> str | None:
        return _hex(self._get("task_id"))

    def get_task_name(self) -> str | None:
        return self._get("task_name")  # type: ignore[no-any-return]

    def get_task_function_name(self) -> str | None:
        return self._get("function_name")  # type: ignore[no-any-return]

    def get_actor_id(self) -> str | None:
        return _hex(self._get("actor_id"))

    def get_actor_name(self) -> str:
        return self._get("actor_name")  # type: ignore[no-any-return]

    def get_placement_group_id(self) -> str | None:
        return _hex(self._get("group_id"))

    def get_assigned_resources(self) -> dict[str, float]:
        return self._get("resources")  # type: ignore[no-any-return]

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        return {kind: [str(index) for index in ids] for kind, ids in self._get("accelerators").items()}

    def get_runtime_env_string(self) -> str:
        return self._get("runtime_env") or "{}"

    def is_canceled(self) -> bool:
        """Whether the task or call that asks was cancelled, or is past its deadline (``timeout_s``).

        Whoever has asked at least once is trusted to look again: after a cancel it has half a second to end by itself
        before ``KeyboardInterrupt`` is raised in it. What it returns then is its result. In a durable actor always
        False: its running calls are not cancelled. False in a driver as well.

        Example:
            >>> @actorlib.remote  # doctest: +SKIP
            ... def search(parts):
            ...     for number, part in enumerate(parts):
            ...         if actorlib.get_runtime_context().is_canceled():
            ...             return f"stopped at part {number}"
            ...         look_through(part)
        """
        return self._get("is_canceled")()  # type: ignore[no-any-return]

    @property
    def namespace(self) -> str:
        return self._get("namespace")  # type: ignore[no-any-return]

    @property
    def was_current_actor_reconstructed(self) -> bool:
        return self._get("was_restarted")  # type: ignore[no-any-return]

    @property
    def current_actor(self) -> Any:
        """A handle to the actor that asks. Raises RuntimeError outside of one."""
        handle = self._get("current_actor")
        if handle is None:
            raise RuntimeError("current_actor is for the methods of an actor; this is not one")
        return handle

    @property
    def gcs_address(self) -> str:
        return self._get("address")  # type: ignore[no-any-return]


def get_runtime_context() -> RuntimeContext:
    """Where the calling code runs: job, node, worker, task, actor."""
    return RuntimeContext()


def get_gpu_ids() -> list[int]:
    """The indices of the GPUs that the calling task or actor may use."""
    return list(_engine.current().context()["accelerators"].get("GPU", ()))
