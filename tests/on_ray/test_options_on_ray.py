"""No option is dropped in silence: each reaches Ray, is kept by us, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from actorlib import Checkpoint, exceptions, options
from actorlib.engines.on_ray import options as rays
from actorlib.util.placement_group import PlacementGroup

GROUP = PlacementGroup(b"g" * 18, [{"CPU": 1}, {"CPU": 1}])
BOTH: dict[str, Any] = {
    "num_cpus": 2,
    "num_gpus": 0.5,
    "resources": {"special": 0.0001},
    "memory": 1 << 20,
    "accelerator_type": "T4",
    "label_selector": {"zone": "in(a,b)"},
    "scheduling_strategy": "SPREAD",
    "placement_group": GROUP,
    "placement_group_bundle_index": 1,
    "placement_group_capture_child_tasks": True,
    "name": "christened",
    "runtime_env": {"env_vars": {"A": "b"}},
    "priority": 3,
    "timeout_s": 5.0,
    "_metadata": {"for": "nobody"},
}
TASK: dict[str, Any] = {
    **BOTH,
    "max_retries": 7,
    "retry_exceptions": [KeyError],
    "num_returns": 3,
    "max_calls": 2,
    "_generator_backpressure_num_objects": 4,
}
ACTOR: dict[str, Any] = {
    **BOTH,
    "max_restarts": 2,
    "max_task_retries": 3,
    "max_concurrency": 4,
    "concurrency_groups": {"io": 2},
    "namespace": "elsewhere",
    "lifetime": "detached",
    "get_if_exists": True,
    "max_pending_calls": 9,
    "allow_out_of_order_execution": True,
    "reentrant": True,
    "checkpoint": Checkpoint(every_calls=3),
}
METHOD: dict[str, Any] = {
    "priority": 3,
    "num_returns": 3,
    "concurrency_group": "io",
    "max_task_retries": 3,
    "retry_exceptions": True,
    "timeout_s": 5.0,
    "name": "christened",
    "readonly": True,
    "_generator_backpressure_num_objects": 4,
}
REFUSED = ("priority", "reentrant")
# Deadlines are kept by the engine; a readonly method is logged like any other; metadata is nobody's.
KEPT_HERE = ("timeout_s", "readonly", "_metadata")
NEEDS = {
    "placement_group_bundle_index": {"placement_group": GROUP},
    "placement_group_capture_child_tasks": {"placement_group": GROUP},
    "get_if_exists": {"name": "christened"},
}


class Plain:
    """An actor's class."""


def of_task(given: dict[str, Any]) -> dict[str, Any]:
    return rays.of_task(options.task_options(given, len))


def of_actor(given: dict[str, Any]) -> dict[str, Any]:
    return rays.of_actor(options.actor_options(given, Plain))


def of_method(given: dict[str, Any]) -> dict[str, Any]:
    return rays.of_method(options.method_options(given, None))


def spelled(found: dict[str, Any]) -> dict[str, str]:
    """Ray's strategies are not compared by value."""
    return {name: str(vars(value)) if hasattr(value, "__dict__") else repr(value) for name, value in found.items()}


TABLES = [(of_task, options.TASK, TASK), (of_actor, options.ACTOR, ACTOR), (of_method, options.METHOD, METHOD)]


@pytest.mark.parametrize("make, known, values", TABLES, ids=["tasks", "actors", "methods"])
def test_each_option_reaches_ray(
    make: Callable[[dict[str, Any]], dict[str, Any]], known: dict[str, Any], values: dict[str, Any]
) -> None:
    assert set(values) == set(known)
    for name, value in values.items():
        base = NEEDS.get(name, {})
        if name in REFUSED:
            with pytest.raises(exceptions.NotSupportedByEngineError):
                make({name: value})
        elif name in KEPT_HERE:
            assert spelled(make({name: value})) == spelled(make({}))
        else:
            assert spelled(make({**base, name: value})) != spelled(make(base)), name
