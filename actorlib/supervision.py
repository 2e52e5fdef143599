"""Supervision: who is told of an actor's end, who ends with it, and who starts it again. Terms as in Erlang/OTP.

    tree = actorlib.Supervisor(
        [actorlib.Child(Cache, id="cache"), actorlib.Child(Reader, args=("/data",), id="reader", restart="transient")],
        strategy="rest_for_one",
        intensity=(3, 10.0),
    )
    tree.child("reader").read.remote()

A supervisor is an actor. It starts its children in order, notices when one ends, and starts it (and by its strategy
others) again, as new actors: ask ``child(id)`` for the current handle, or give children names. See docs/supervision.md.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from actorlib import api, exceptions
from actorlib import engine as _engine
from actorlib.actor import ActorClass, ActorHandle, ConfiguredActor
from actorlib.engine import DeadLetter, Down, MethodOptions
from actorlib.object_ref import ObjectRef
from actorlib.runtime.supervision import (
    PERMANENT,
    RESTARTS,
    STRATEGIES,
    Began,
    Effect,
    Event,
    GiveUp,
    Start,
    Started,
    StartFailed,
    Stop,
    StopAsked,
    Supervision,
    WentDown,
)

KILL_TIMEOUT_S = 30.0


def monitor(handle: ActorHandle[Any]) -> ObjectRef[Down]:
    """A reference that resolves to a ``Down`` when the actor is dead for good (restarts on the way don't count).

    It resolves at once for an actor that is dead, and does not keep one alive.

        down = actorlib.get(actorlib.monitor(handle))
        print(down.kind, down.reason)
    """
    current = _engine.current()
    _engine.check_handle(handle, current)
    return current.monitor(handle)


def link(first: ActorHandle[Any], second: ActorHandle[Any]) -> None:
    """Tie two actors together: when one ends other than normally, the other is killed, for that reason.

    Normal ends are ``exit_actor()`` and that no handle is left. An actor that is dead already takes the other with it.
    The cluster keeps links, so they hold when the caller is gone. Raises ValueError for an actor linked with itself.
    """
    current = _engine.current()
    for handle in (first, second):
        _engine.check_handle(handle, current)
    current.link_actors(first, second)


def on_dead_letter(listener: Callable[[DeadLetter], None]) -> Callable[[], None]:
    """Tell ``listener`` of each call of this process that never reached its actor, since that is dead.

    It is called from whichever thread looks after messages, so it must be brief and must not wait. Gives a function
    that ends it.

        stop = actorlib.on_dead_letter(lambda letter: print(letter.class_name, letter.method, letter.reason))
    """
    return _engine.current().listen_to_dead_letters(listener)


@dataclass(frozen=True)
class Child:
    """How a supervisor starts one of its children.

    Args:
        actor: An actor class, with or without ``options(...)``.
        args, kwargs: For its constructor.
        id: How it is called in the supervisor; default: the name of its class.
        restart: ``"permanent"``: started again whenever it ends; ``"transient"``: unless it ended normally;
            ``"temporary"``: never.
        stop_timeout_s: How long it may take to end when it is asked to; then it is killed.
    """

    actor: ActorClass[Any, Any] | ConfiguredActor[Any, Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    id: str = ""
    restart: str = PERMANENT
    stop_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if not isinstance(self.actor, ActorClass | ConfiguredActor):
            raise TypeError(f"Child(actor={self.actor!r}): give an actor class, as @actorlib.remote makes it")
        if self.restart not in RESTARTS:
            raise ValueError(f"Child(restart={self.restart!r}); it is one of {', '.join(map(repr, RESTARTS))}")
        if self.stop_timeout_s < 0:
            raise ValueError(f"Child(stop_timeout_s={self.stop_timeout_s}); it must be at least 0")

    def name(self) -> str:
        if self.id:
            return self.id
        base = self.actor if isinstance(self.actor, ActorClass) else self.actor._base
        return str(base.cls.__name__)

    def start(self) -> ActorHandle[Any]:
        return self.actor.remote(*self.args, **self.kwargs)


def branch(
    children: Sequence[Child],
    *,
    id: str,
    strategy: str = "one_for_one",
    intensity: tuple[int, float] = (3, 5.0),
    restart: str = PERMANENT,
    stop_timeout_s: float = 30.0,
) -> Child:
    """A supervisor as a child of another one. Arguments as for ``Supervisor`` and ``Child``."""
    _check(children, strategy, intensity)
    return Child(_supervisor_class(), (tuple(children), strategy, intensity), {}, id, restart, stop_timeout_s)


def _check(children: Sequence[Child], strategy: str, intensity: tuple[int, float]) -> None:
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy={strategy!r}; it is one of {', '.join(map(repr, STRATEGIES))}")
    restarts, period_s = intensity
    if not isinstance(restarts, int) or restarts < 0 or period_s <= 0:
        raise ValueError(f"intensity={intensity!r}; it is (restarts, period in seconds), such as (3, 5.0)")
    names = [child.name() for child in children]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"children share the id {twice[0]!r}; give each an id= of its own")


class SupervisingActor:
    """The actor behind ``Supervisor``: carries out what ``runtime/supervision.py`` decides."""

    def __init__(self, children: Sequence[Child], strategy: str, intensity: tuple[int, float]) -> None:
        self._plans = {child.name(): child for child in children}
        self._core = Supervision([(name, child.restart) for name, child in self._plans.items()], strategy, *intensity)
        self._handles: dict[str, ActorHandle[Any]] = {}
        self._monitors: dict[str, ObjectRef[Down]] = {}
        self._told: dict[str, int] = {}  # how often each child was started
        self._failed = ""
        self._run(Began())
        if self._failed:
            raise exceptions.SupervisorFailedError(self._failed)

    # -- what the core decides -----------------------------------------------------------------------------------------
    def _run(self, event: Event) -> None:
        todo = deque(self._core.handle(time.monotonic(), event))
        while todo:
            outcome = self._carry_out(todo.popleft())
            if outcome is not None:
                todo.extend(self._core.handle(time.monotonic(), outcome))

    def _carry_out(self, effect: Effect) -> Event | None:
        if isinstance(effect, Start):
            return self._start(effect.child)
        if isinstance(effect, Stop):
            return self._stop(effect.child)
        if isinstance(effect, GiveUp):
            self._give_up(effect.reason)
        return None

    def _start(self, name: str) -> Event:
        try:
            handle = self._plans[name].start()
            api.get(handle.__ray_ready__.remote())
        except exceptions.ActorError as error:
            return StartFailed(name, str(error))
        except (ValueError, TypeError) as error:  # a name that is taken, arguments that don't fit
            return StartFailed(name, f"{type(error).__name__}: {error}")
        self._handles[name] = handle
        down = self._monitors[name] = monitor(handle)
        count = self._told[name] = self._told.get(name, 0) + 1
        engine = _engine.current()
        me = engine.context()["current_actor"]
        engine.when_ready(down, lambda: engine.call(me, "_child_ended", (name, count), {}, MethodOptions()))
        return Started(name)

    def _child_ended(self, name: str, count: int) -> None:
        """A child has ended, maybe one whose end we have seen already."""
        if self._told.get(name) != count or name not in self._monitors:
            return
        down = api.get(self._monitors[name])
        self._forget(name)
        self._run(WentDown(name, down.normal, f"{down.kind}: {down.reason}"))

    def _forget(self, name: str) -> None:
        del self._monitors[name], self._handles[name]

    def _stop(self, name: str) -> Event:
        """In good order, or by force. A child that ends by itself meanwhile has done what was wanted."""
        handle, down = self._handles[name], self._monitors[name]
        handle.__ray_terminate__.remote()
        ended, _ = api.wait([down], timeout=self._plans[name].stop_timeout_s)
        if not ended:
            api.kill(handle)
            api.get(down, timeout=KILL_TIMEOUT_S)
        self._forget(name)
        return WentDown(name, True, "stopped by its supervisor")

    def _give_up(self, reason: str) -> None:
        self._failed = reason
        if self._core.is_up:
            _engine.current().fail_actor(exceptions.RestartIntensityError(reason))

    # -- what others ask -----------------------------------------------------------------------------------------------
    def child(self, name: str) -> ActorHandle[Any]:
        if name not in self._plans:
            raise ValueError(f"there is no child {name!r}; there are {', '.join(map(repr, self._plans))}")
        if name not in self._handles:
            found = self._core.children[name]
            raise exceptions.ChildNotRunningError(
                f"child {name!r} ({found.restart}) is not running; its last end: {found.reason or 'never started'}"
            )
        return self._handles[name]

    def children(self) -> list[dict[str, Any]]:
        return [
            {
                "id": child.name,
                "state": child.state.value,
                "restart": child.restart,
                "restarts": child.restarts,
                "last_end": child.reason,
            }
            for child in self._core.children.values()
        ]

    def stop(self) -> None:
        self._run(StopAsked())

    def __shutdown__(self) -> None:
        """However this actor ends in good order, its children end before it."""
        if not self._core.is_over:
            self._run(StopAsked())


def _supervisor_class() -> ActorClass[Any, Any]:
    made: ActorClass[Any, Any] = api.remote(num_cpus=0)(SupervisingActor)
    return made


class Supervisor:
    """Starts children in order and keeps them going. It ends, children first, with ``stop()`` or its last handle.

    Args:
        children: ``Child`` objects, actor classes, or ``branch(...)`` for supervisors of supervisors.
        strategy: What stops and starts with a child that ends: ``"one_for_one"``: nothing else; ``"one_for_all"``: all
            others; ``"rest_for_one"``: those that were started after it.
        intensity: (restarts, period in seconds): when more are needed than that, all children are stopped and the
            supervisor fails with RestartIntensityError, which names the last ends.

    Raises SupervisorFailedError if a child can't be started.
    """

    def __init__(
        self,
        children: Sequence[Child | ActorClass[Any, Any] | ConfiguredActor[Any, Any]],
        strategy: str = "one_for_one",
        intensity: tuple[int, float] = (3, 5.0),
    ) -> None:
        plans = tuple(each if isinstance(each, Child) else Child(each) for each in children)
        _check(plans, strategy, intensity)
        self.handle: ActorHandle[Any] = _supervisor_class().remote(plans, strategy, intensity)
        try:
            api.get(self.handle.__ray_ready__.remote())
        except exceptions.ActorDiedError as error:
            raise exceptions.SupervisorFailedError(f"the supervisor could not start its children: {error}") from error

    def child(self, id: str) -> ActorHandle[Any]:
        """The child's current handle; a new one after each restart. Raises ChildNotRunningError while there is none."""
        handle: ActorHandle[Any] = api.get(self.handle.child.remote(id))
        return handle

    def children(self) -> list[dict[str, Any]]:
        """For each child, in order: id, state, restart, restarts (how many), last_end (why)."""
        rows: list[dict[str, Any]] = api.get(self.handle.children.remote())
        return rows

    def monitor(self) -> ObjectRef[Down]:
        """Resolves when the supervisor has ended."""
        return monitor(self.handle)

    def stop(self) -> None:
        """Stop all children, last first, then the supervisor. Returns when that is done."""
        down = self.monitor()
        api.get(self.handle.stop.remote())
        self.handle.__ray_terminate__.remote()
        api.get(down)


__all__ = ["Child", "DeadLetter", "Down", "Supervisor", "branch", "link", "monitor", "on_dead_letter"]
