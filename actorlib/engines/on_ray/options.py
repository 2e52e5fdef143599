"""Our options in Ray's words. What Ray has no word for is refused, with the way out: never a silent difference."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from actorlib import exceptions
from actorlib.engine import DYNAMIC, STREAMING, ActorOptions, MethodOptions, TaskOptions

UNITS = 10_000
EXISTS = "exists()"  # as util.scheduling_strategies writes it


def refuse(what: str, way_out: str) -> exceptions.NotSupportedByEngineError:
    return exceptions.NotSupportedByEngineError("ray", what, way_out)


def amounts(demand: dict[str, int]) -> dict[str, Any]:
    """Resources in units of 0.0001 as the arguments of ``ray.remote``."""
    rest = {name: amount / UNITS for name, amount in demand.items()}
    found: dict[str, Any] = {"num_cpus": rest.pop("CPU", 0)}
    if "GPU" in rest:
        found["num_gpus"] = rest.pop("GPU")
    if "memory" in rest:
        found["memory"] = int(rest.pop("memory"))
    for name in list(rest):
        if name.startswith("accelerator_type:"):
            found["accelerator_type"] = name.partition(":")[2]
            del rest[name]
    if rest:
        found["resources"] = rest
    return found


def placing(strategy: tuple[Any, ...]) -> dict[str, Any]:
    """Where it may run."""
    from ray.util import scheduling_strategies as rays

    from actorlib.engines.on_ray.groups import rays_group

    kind = strategy[0]
    if kind == "spread":
        return {"scheduling_strategy": "SPREAD"}
    if kind == "node":
        return {"scheduling_strategy": rays.NodeAffinitySchedulingStrategy(strategy[1].hex(), soft=strategy[2])}
    if kind == "group":
        return {
            "scheduling_strategy": rays.PlacementGroupSchedulingStrategy(
                rays_group(strategy[1]), strategy[2], strategy[3]
            )
        }
    if kind == "labels":
        hard, soft = strategy[1], strategy[2]
        if not soft and not any(text.endswith(EXISTS) for text in hard.values()):
            return {"label_selector": dict(hard)}
        both = rays.NodeLabelSchedulingStrategy(hard=_conditions(hard), soft=_conditions(soft))
        return {"scheduling_strategy": both}
    return {}


def _conditions(wanted: dict[str, str]) -> dict[str, Any]:
    from ray.util.scheduling_strategies import DoesNotExist, Exists, In, NotIn

    found: dict[str, Any] = {}
    for name, text in wanted.items():
        negated, bare = text.startswith("!"), text.lstrip("!")
        if bare == EXISTS:
            found[name] = DoesNotExist() if negated else Exists()
            continue
        values = [part.strip() for part in bare[3:-1].split(",")] if bare.startswith("in(") else [bare]
        found[name] = NotIn(*values) if negated else In(*values)
    return found


def environment(text: str) -> dict[str, Any]:
    if not text:
        return {}
    given = json.loads(text)
    if given.pop("preload", None):
        raise refuse("preload in a runtime_env", "import the modules inside the task, or init(preload=...)")
    paths = [given.get("working_dir", ""), *given.get("py_modules", ())]
    if any(path and "://" not in path for path in paths):
        raise refuse("a local directory in the runtime_env of a task or actor", "init(runtime_env=...), or a URL")
    return {"runtime_env": given}


def _returns(count: int) -> dict[str, Any]:
    if count == STREAMING:
        return {"num_returns": "streaming"}
    return {} if count in (1, DYNAMIC) else {"num_returns": count}


def _classes(value: Any) -> Any:
    if isinstance(value, bytes):
        from actorlib import serialization

        value = serialization.deserialize(value)
    return list(value) if isinstance(value, tuple) else value


def of_task(options: TaskOptions) -> dict[str, Any]:
    """A task's options for ``ray.remote``."""
    found = {
        **amounts(options.resources),
        **placing(options.strategy),
        **environment(options.runtime_env),
        **_returns(options.num_returns),
        "max_retries": options.max_retries,
        "retry_exceptions": _classes(options.retry_exceptions),
    }
    if options.priority:
        raise refuse("priority=, an order of its queue", "leave it out: Ray runs tasks in the order that it chooses")
    if options.max_calls:
        found["max_calls"] = options.max_calls
    if options.name:
        found["name"] = options.name
    if options.backpressure > 0:
        found["_generator_backpressure_num_objects"] = options.backpressure
    return found


def of_actor(options: ActorOptions) -> dict[str, Any]:
    """An actor's options for ``ray.remote``."""
    if options.priority:
        raise refuse("priority=, an order of its queue", "leave it out: Ray places actors in the order that it chooses")
    if options.reentrant:
        raise refuse("reentrant actors", "make the method async, or call the method directly through self")
    found = {**placing(options.strategy), **environment(options.runtime_env)}
    if options.resources_to_place != options.resources_to_run:
        if {"CPU": 1 * UNITS, **options.resources_to_run} != options.resources_to_place:
            raise refuse("an actor with other resources to place than to run", "set num_cpus")
        found.update({key: value for key, value in amounts(options.resources_to_run).items() if key != "num_cpus"})
    else:
        found.update(amounts(options.resources_to_run))
    found["max_restarts"] = options.max_restarts
    found["max_task_retries"] = -1 if options.checkpoint is not None else options.max_task_retries
    if options.max_concurrency > 1 and not (options.is_async and options.max_concurrency == 1000):
        found["max_concurrency"] = options.max_concurrency
    elif options.is_async and options.max_concurrency == 1:
        found["max_concurrency"] = 1
    if options.concurrency_groups:
        found["concurrency_groups"] = dict(options.concurrency_groups)
    if options.name:
        found["name"] = options.name
    if options.namespace:
        found["namespace"] = options.namespace
    if options.detached:
        found["lifetime"] = "detached"
    if options.get_if_exists:
        found["get_if_exists"] = True
    if options.max_pending_calls >= 0:
        found["max_pending_calls"] = options.max_pending_calls
    if options.out_of_order:
        found["allow_out_of_order_execution"] = True
    return found


def of_method(options: MethodOptions) -> dict[str, Any]:
    """A method's options for ``handle.method.options``."""
    if options.priority:
        raise refuse("priority= of a call", "leave it out: Ray runs an actor's calls in the order that they were made")
    found = _returns(options.num_returns)
    if options.max_task_retries is not None:
        found["max_task_retries"] = options.max_task_retries
    if options.retry_exceptions:
        found["retry_exceptions"] = _classes(options.retry_exceptions)
    if options.concurrency_group:
        found["concurrency_group"] = options.concurrency_group
    if options.name:
        found["name"] = options.name
    if options.backpressure > 0:
        found["_generator_backpressure_num_objects"] = options.backpressure
    return found


def of_method_in_class(options: MethodOptions) -> dict[str, Any]:
    """A method's options for ``ray.method``, so that who calls it in plain Ray has them as well."""
    given = of_method(dataclasses.replace(options, name="", priority=0))
    if options.num_returns == DYNAMIC or isinstance(options.retry_exceptions, bytes):
        return {}
    return given
