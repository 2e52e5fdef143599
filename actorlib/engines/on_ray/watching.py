"""Monitors on Ray: one actor of ours asks Ray's tables what became of others."""

from __future__ import annotations

import asyncio
from typing import Any

from actorlib.engine import Down

NAME = "actorlib:monitor"
LOOK_EVERY_S = 0.2


class Monitor:
    """Lives with its job; asks, and keeps no actor alive."""

    async def down(self, actor_id: str, class_name: str) -> Down:
        import ray

        while True:
            row = ray._private.state.actors(actor_id)
            if not row or row.get("State") == "DEAD":
                return _down(actor_id, class_name, row or {})
            await asyncio.sleep(LOOK_EVERY_S)


def _down(actor_id: str, class_name: str, row: dict[str, Any]) -> Down:
    cause = str(row.get("DeathCause") or row.get("death_cause") or "")
    reason = cause or "Ray says that it is dead"
    low = reason.lower()
    if "ray.kill" in low:
        kind = "killed"
    elif "exit_actor" in low or "intended" in low:
        kind = "exited"
    elif "out of scope" in low or "reference" in low:
        kind = "released"
    elif "creation" in low or "__init__" in low:
        kind = "failed"
    else:
        kind = "crashed"
    pid = row.get("Pid") or None
    return Down(actor_id, class_name, kind, reason, kind in ("exited", "released"), pid, None, None)


def monitor(handle: Any) -> Any:
    """Ray's reference to a Down."""
    import ray

    host = ray.remote(num_cpus=0, name=NAME, get_if_exists=True, max_concurrency=1000)(Monitor).remote()
    monitors.append(host)
    del monitors[:-1]
    return host.down.remote(handle._actor_id.hex(), handle._class_name)


monitors: list[Any] = []
