"""Options of tasks, actors and methods: which there are, what values they take, and what the engine gets of them."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from actorlib.engine import DYNAMIC, STREAMING, ActorOptions, MethodOptions, TaskOptions
from actorlib.scheduler.resources import ACCELERATORS, to_units

ASYNC_CONCURRENCY = 1000
RUNTIME_ENV_KEYS = ("env_vars", "working_dir", "py_modules", "preload")


DURABILITIES = ("auto", "worker", "disk", "replicated")


@dataclass(frozen=True)
class Checkpoint:
    """Makes an actor durable: how often its state is saved, and what its log of calls outlives in between.

    Args:
        every_calls: save after this many calls (None: not by count).
        every_s: save when this many seconds have passed since the last time (None: not by time).
        keep: how many of the newest checkpoints are kept.
        durability: what the log of calls outlives: ``"worker"`` the death of processes, ``"disk"`` a power cut,
            ``"replicated"`` the loss of the node. ``"auto"`` takes what the deployment can outlive.
        store: a directory or fsspec URL for checkpoints too large for the cluster's tables.

    Example:
        >>> @actorlib.remote(checkpoint=actorlib.Checkpoint(every_calls=100, durability="disk"))
        ... class Account: ...
    """

    every_calls: int | None = 1000
    every_s: float | None = None
    keep: int = 2
    durability: str = "auto"
    store: str | None = None

    def __post_init__(self) -> None:
        if self.every_calls is not None and (not isinstance(self.every_calls, int) or self.every_calls < 1):
            raise ValueError(f"every_calls must be an int of at least 1 or None, not {self.every_calls!r}")
        if self.every_s is not None and self.every_s <= 0:
            raise ValueError(f"every_s must be positive or None, not {self.every_s!r}")
        if self.keep < 1:
            raise ValueError(f"keep must be at least 1, not {self.keep!r}")
        if self.durability not in DURABILITIES:
            raise ValueError(f"durability must be one of {', '.join(DURABILITIES)}, not {self.durability!r}")
        if self.store is not None and (not isinstance(self.store, str) or not self.store):
            raise TypeError(f"store must be a directory or a URL, not {self.store!r}")


def _fail(name: str, value: Any, wanted: str) -> None:
    kind = ValueError if isinstance(value, int | float | str) and not isinstance(value, bool) else TypeError
    raise kind(f"option {name}={value!r}: must be {wanted}")


def _number(name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        _fail(name, value, "a number")
    if value is not None and value < 0:
        _fail(name, value, "at least 0")


def _count(minimum: int) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            _fail(name, value, f"an int of at least {minimum}")

    return check


def _text(name: str, value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise (TypeError if not isinstance(value, str) else ValueError)(
            f"option {name}={value!r}: must be a non-empty string"
        )


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        _fail(name, value, "True or False")


def _mapping(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, dict):
        _fail(name, value, "a dict")


def _resources(name: str, value: Any) -> None:
    _mapping(name, value)
    for key, amount in (value or {}).items():
        if key in ("CPU", "GPU", "memory"):
            raise ValueError(f"resources={value!r}: use num_cpus, num_gpus or memory instead of the key {key!r}")
        to_units(str(key), amount)


def _returns(name: str, value: Any) -> None:
    if value in ("streaming", "dynamic") or value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        _fail(name, value, 'an int of at least 0, "streaming" or "dynamic"')


def _retry_exceptions(name: str, value: Any) -> None:
    if isinstance(value, bool):
        return
    if isinstance(value, list | tuple) and all(isinstance(k, type) and issubclass(k, BaseException) for k in value):
        return
    _fail(name, value, "True, False or a list of exception classes")


def _lifetime(name: str, value: Any) -> None:
    if value not in (None, "detached", "non_detached"):
        _fail(name, value, '"detached", "non_detached" or None')


def _checkpoint(name: str, value: Any) -> None:
    if value is None or isinstance(value, Checkpoint):
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        _fail(name, value, "a number of calls or an actorlib.Checkpoint")


def _groups(name: str, value: Any) -> None:
    _mapping(name, value)
    for group, limit in (value or {}).items():
        _count(1)(f"{name}[{group!r}]", limit)


def _anything(_name: str, _value: Any) -> None:
    """Checked where it is used."""


Check = Callable[[str, Any], None]
_BOTH: dict[str, Check] = {
    "num_cpus": _number,
    "num_gpus": _number,
    "resources": _resources,
    "memory": _number,
    "accelerator_type": _text,
    "label_selector": _mapping,
    "scheduling_strategy": _anything,
    "placement_group": _anything,
    "placement_group_bundle_index": _count(-1),
    "placement_group_capture_child_tasks": _anything,
    "name": _text,
    "runtime_env": _mapping,
    "priority": lambda name, value: None if isinstance(value, int) else _fail(name, value, "an int"),
    "_metadata": _anything,
}
TASK: dict[str, Check] = {
    **_BOTH,
    "max_retries": _count(-1),
    "retry_exceptions": _retry_exceptions,
    "num_returns": _returns,
    "max_calls": _count(0),
    "timeout_s": _number,
    "_generator_backpressure_num_objects": _count(-1),
}
ACTOR: dict[str, Check] = {
    **_BOTH,
    "max_restarts": _count(-1),
    "max_task_retries": _count(-1),
    "max_concurrency": _count(1),
    "concurrency_groups": _groups,
    "namespace": _text,
    "lifetime": _lifetime,
    "get_if_exists": _flag,
    "max_pending_calls": _count(-1),
    "allow_out_of_order_execution": _flag,
    "reentrant": _flag,
    "timeout_s": _number,
    "checkpoint": _checkpoint,
}
METHOD: dict[str, Check] = {
    "priority": _BOTH["priority"],
    "num_returns": _returns,
    "concurrency_group": _text,
    "max_task_retries": _count(-1),
    "retry_exceptions": _retry_exceptions,
    "timeout_s": _number,
    "name": _text,
    "readonly": _flag,
    "_generator_backpressure_num_objects": _count(-1),
}


def check(options: dict[str, Any], table: dict[str, Check], what: str) -> None:
    """Refuse unknown names (with the nearest valid one) and wrong values."""
    for name, value in options.items():
        if name not in table:
            near = difflib.get_close_matches(name, table, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            valid = ", ".join(option for option in table if not option.startswith("_"))
            raise ValueError(f"{what} have no option {name!r}.{hint} Valid options: {valid}")
        if value is not None:
            table[name](name, value)


def _demand(options: dict[str, Any], cpus: float) -> dict[str, int]:
    given = options.get("num_cpus")
    demand = {"CPU": to_units("CPU", cpus if given is None else given)}
    if options.get("num_gpus"):
        demand["GPU"] = to_units("GPU", options["num_gpus"])
    if options.get("memory"):
        demand["memory"] = to_units("memory", int(options["memory"]))
    for name, amount in (options.get("resources") or {}).items():
        if amount:
            demand[name] = to_units(name, amount)
    if options.get("accelerator_type"):
        demand[f"accelerator_type:{options['accelerator_type']}"] = to_units("accelerator_type", 0.001)
    for kind in ACCELERATORS:
        amount = demand.get(kind, 0)
        if amount > 10_000 and amount % 10_000:
            raise ValueError(f"{amount / 10_000} {kind}: above 1 only whole numbers; devices are not split")
    return {name: amount for name, amount in demand.items() if amount}


def _strategy(options: dict[str, Any]) -> tuple[Any, ...]:
    strategy = options.get("scheduling_strategy")
    group = options.get("placement_group")
    selector = options.get("label_selector")
    if group not in (None, "default"):
        index = options.get("placement_group_bundle_index", -1)
        capture = bool(options.get("placement_group_capture_child_tasks"))
        return ("group", group._group_id, index, capture)
    if selector:
        return ("labels", {str(k): str(v) for k, v in selector.items()}, {})
    if strategy in (None, "DEFAULT"):
        return ("default",)
    if strategy == "SPREAD":
        return ("spread",)
    if hasattr(strategy, "to_strategy"):
        result: tuple[Any, ...] = strategy.to_strategy()
        return result
    raise ValueError(
        f'scheduling_strategy={strategy!r}: must be "DEFAULT", "SPREAD" or one of actorlib.util.scheduling_strategies'
    )


def runtime_env(value: dict[str, Any] | None) -> str:
    """A runtime environment as canonical JSON; '' if there is none."""
    if not value:
        return ""
    unknown = [key for key in value if key not in RUNTIME_ENV_KEYS]
    if unknown:
        raise ValueError(f"runtime_env has no {unknown[0]!r}; it takes {', '.join(RUNTIME_ENV_KEYS)}")
    variables = value.get("env_vars", {})
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in variables.items()):
        raise TypeError("runtime_env['env_vars'] maps strings to strings")
    return json.dumps(value, sort_keys=True)


def _returns_code(value: Any, is_generator: bool) -> int:
    if value is None:
        return STREAMING if is_generator else 1
    return int({"streaming": STREAMING, "dynamic": DYNAMIC}.get(value, value))


def _retry(value: Any) -> bool | tuple[type[BaseException], ...]:
    return tuple(value) if isinstance(value, list | tuple) else bool(value)


def is_generator(function: Any) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def task_options(options: dict[str, Any], function: Any) -> TaskOptions:
    """Check a task's options and put them into the engine's form."""
    check(options, TASK, "tasks")
    demand, strategy, environment = _demand(options, 1), _strategy(options), runtime_env(options.get("runtime_env"))
    priority = options.get("priority") or 0
    frozen = tuple(tuple(sorted(part.items())) if isinstance(part, dict) else part for part in strategy)
    retries = options.get("max_retries")
    return TaskOptions(
        resources=demand,
        strategy=strategy,
        runtime_env=environment,
        num_returns=_returns_code(options.get("num_returns"), is_generator(function)),
        max_retries=3 if retries is None else retries,
        retry_exceptions=_retry(options.get("retry_exceptions")),
        max_calls=options.get("max_calls") or 0,
        name=options.get("name") or "",
        timeout_s=options.get("timeout_s"),
        priority=priority,
        backpressure=options.get("_generator_backpressure_num_objects") or -1,
        shape=(tuple(sorted(demand.items())), frozen, environment, priority),
    )


def has_async_methods(cls: type) -> bool:
    functions = [item for _, item in inspect.getmembers(cls, inspect.isfunction)]
    return any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in functions)


def actor_options(options: dict[str, Any], cls: type) -> ActorOptions:
    """Check an actor's options and put them into the engine's form."""
    check(options, ACTOR, "actors")
    is_async = has_async_methods(cls)
    place, run = _demand(options, 1), _demand(options, 0)
    checkpoint = options.get("checkpoint")
    if isinstance(checkpoint, int):
        checkpoint = Checkpoint(every_calls=checkpoint)
    restarts = options.get("max_restarts")
    if restarts is None:
        restarts = -1 if checkpoint is not None else 0
    if checkpoint is not None:
        _refuse_for_durable(options)
        is_async = False  # its coroutines run to their end, one call at a time
    if options.get("reentrant"):
        _refuse_for_reentrant(options, is_async)
    concurrency = options.get("max_concurrency") or (ASYNC_CONCURRENCY if is_async else 1)
    groups = dict(options.get("concurrency_groups") or {})
    return ActorOptions(
        resources_to_place=place,
        resources_to_run=run,
        strategy=_strategy(options),
        runtime_env=runtime_env(options.get("runtime_env")),
        name=options.get("name") or "",
        namespace=options.get("namespace"),
        detached=options.get("lifetime") == "detached",
        get_if_exists=_needs_name(options),
        max_restarts=restarts,
        max_task_retries=options.get("max_task_retries") or 0,
        max_concurrency=concurrency,
        concurrency_groups=groups,
        max_pending_calls=-1 if options.get("max_pending_calls") is None else options["max_pending_calls"],
        out_of_order=bool(options.get("allow_out_of_order_execution")),
        checkpoint={f.name: getattr(checkpoint, f.name) for f in fields(Checkpoint)} if checkpoint else None,
        is_async=is_async,
        priority=options.get("priority") or 0,
        timeout_s=options.get("timeout_s"),
        reentrant=bool(options.get("reentrant")),
    )


def _refuse_for_reentrant(options: dict[str, Any], is_async: bool) -> None:
    """Actors that run several calls at once need no leave for it."""
    if is_async or (options.get("max_concurrency") or 1) > 1 or options.get("concurrency_groups"):
        raise ValueError("reentrant=True is for actors that run one call at a time; this one runs several anyway")


def _refuse_for_durable(options: dict[str, Any]) -> None:
    """A durable actor's calls are run again in the order of its log, so there must be one order."""
    wrong = {
        "max_concurrency": (options.get("max_concurrency") or 1) > 1,
        "concurrency_groups": bool(options.get("concurrency_groups")),
        "allow_out_of_order_execution": bool(options.get("allow_out_of_order_execution")),
        "reentrant": bool(options.get("reentrant")),
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise ValueError(
                f"checkpoint= and {name} don't go together: a durable actor runs one call at a time, in the order of "
                f"its log, so that it can be run again after a crash. Leave out {name}, or checkpoint"
            )


def _needs_name(options: dict[str, Any]) -> bool:
    wanted = bool(options.get("get_if_exists"))
    if wanted and not options.get("name"):
        raise ValueError("get_if_exists=True needs a name")
    return wanted


def method_options(options: dict[str, Any], method: Any, base: MethodOptions | None = None) -> MethodOptions:
    """Check a method's options and put them into the engine's form; ``base`` gives what is not set."""
    check(options, METHOD, "methods")
    base = base or MethodOptions(num_returns=_returns_code(None, is_generator(method)))
    returns = options.get("num_returns")
    retries = options.get("max_task_retries")
    return MethodOptions(
        num_returns=base.num_returns if returns is None else _returns_code(returns, False),
        max_task_retries=base.max_task_retries if retries is None else retries,
        retry_exceptions=_retry(options.get("retry_exceptions", base.retry_exceptions)),
        concurrency_group=options.get("concurrency_group") or base.concurrency_group,
        timeout_s=base.timeout_s if options.get("timeout_s") is None else options["timeout_s"],
        backpressure=options.get("_generator_backpressure_num_objects") or base.backpressure,
        name=options.get("name") or base.name,
        priority=base.priority if options.get("priority") is None else options["priority"],
        readonly=bool(options.get("readonly", base.readonly)),
    )
