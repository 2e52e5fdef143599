"""The rest of the API: session, cancellation, context, ids."""

from __future__ import annotations

from typing import reveal_type

import actorlib


@actorlib.remote
def task() -> int:
    return 1


with actorlib.init(num_cpus=2, resources={"disk": 1.0}) as context:
    reveal_type(context["node_id"])  # N: "Any"

actorlib.init(num_cpus="2")  # E: Argument "num_cpus" to "init" has incompatible type "str"
actorlib.init(resources=["disk"])  # E: Argument "resources" to "init" has incompatible type "list[str]"

actorlib.cancel(task.remote(), force=True)
actorlib.cancel(task)  # E: Argument 1 to "cancel" has incompatible type "RemoteFunction[[], int]"
reveal_type(actorlib.nodes())  # N: list[dict[str, Any]]
reveal_type(actorlib.cluster_resources())  # N: dict[str, float]
reveal_type(actorlib.is_initialized())  # N: "bool"
reveal_type(actorlib.TaskID.from_hex("00"))  # N: TaskID

try:
    actorlib.get(task.remote(), timeout=1)
except actorlib.exceptions.GetTimeoutError as error:
    reveal_type(error)  # N: GetTimeoutError
