"""Recording calls on actors, as the one who calls sees them."""

from __future__ import annotations

import copy
import itertools
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from actorlib import engine as _engine
from actorlib import exceptions
from actorlib.object_ref import ObjectRef
from actorlib.testing.histories.linearizability import TIME_LIMIT_S, Outcome, Verdict, check
from actorlib.testing.histories.models import Model
from actorlib.testing.histories.operation import MAYBE, NEVER, Operation, Raised
from actorlib.testing.histories.timeline import draw

_numbers = itertools.count(1)
_living: weakref.WeakValueDictionary[tuple[int, int], History] = weakref.WeakValueDictionary()


class Drawings:
    """Where a history that fails leaves its drawing; the pytest plugin sets it for each test."""

    directory = Path(".actorlib")
    prefix = ""


class NotLinearizable(AssertionError):
    """No order of the calls explains their results: ``outcome`` says which, ``drawing`` is the timeline's file."""

    def __init__(self, text: str, outcome: Outcome, drawing: Path) -> None:
        super().__init__(text)
        self.outcome = outcome
        self.drawing = drawing


class Undecided(AssertionError):
    """The time limit came before the answer."""


class _Call:
    """A call whose result has not been looked at."""

    __slots__ = ("args", "began_s", "client", "ended_s", "engine", "kwargs", "name", "ref", "result", "target")

    def __init__(self, watched: Watched, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.target, self.client, self.name = watched._target, watched._client or caller(), name
        self.args, self.kwargs = copy.deepcopy(args), copy.deepcopy(kwargs)
        self.engine: Any = _engine.current()
        self.result: Any = MAYBE
        self.ref: Any = None
        self.ended_s = NEVER
        self.began_s = time.monotonic()

    def operation(self) -> Operation:
        ended_s = NEVER if self.result is MAYBE else self.ended_s
        return Operation(
            self.name, self.args, self.result, self.began_s, ended_s, self.client, self.target, self.kwargs
        )


class History:
    """Calls on actors with the times between which they took effect. Made by ``history()``.

    A call that was answered has a result, or ``Raised`` where user code raised. One whose actor was lost, or that
    has not been answered, is pending: it may have happened.
    """

    def __init__(self, name: str = "history") -> None:
        self.name = name
        self.marks: list[tuple[float, str]] = []
        self._calls: list[_Call] = []
        self._id = (os.getpid(), next(_numbers))
        _living[self._id] = self

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self._settle()

    def watch(self, handle: Any, client: str = "", target: str = "") -> Watched:
        """A handle like the given one whose calls are recorded.

        Args:
            handle: an actor's handle.
            client: who calls; by default the thread, task or actor in which the call is made.
            target: what it is called, where several actors are watched.

        In a simulation, what this gives may be passed to tasks and actors, whose calls are then recorded as well.
        """
        return Watched(self, handle, client, target)

    def mark(self, text: str) -> None:
        """Note something that happens now; it stands in the drawing."""
        self.marks.append((time.monotonic(), text))

    @property
    def operations(self) -> list[Operation]:
        """All calls so far, in the order in which they began."""
        self._settle()
        return [call.operation() for call in self._calls]

    def check(self, model: Model, time_limit_s: float = TIME_LIMIT_S) -> Outcome:
        """Whether some order of the calls explains their results; targets are judged apart. See ``check``."""
        targets: dict[str, list[Operation]] = {}
        for operation in self.operations:
            targets.setdefault(operation.target, []).append(operation)
        outcomes = [check(operations, model, time_limit_s) for operations in targets.values()]
        for verdict in (Verdict.NOT_LINEARIZABLE, Verdict.UNKNOWN):
            for outcome in outcomes:
                if outcome.verdict is verdict:
                    return outcome
        order = tuple(operation for outcome in outcomes for operation in outcome.order)
        return Outcome(Verdict.LINEARIZABLE, order, (), sum(outcome.steps for outcome in outcomes))

    def assert_linearizable(self, model: Model, time_limit_s: float = TIME_LIMIT_S) -> None:
        """Raise unless some order of the calls explains their results.

        Raises:
            NotLinearizable: there is none; the history is drawn as a timeline into an SVG file.
            Undecided: no answer within ``time_limit_s`` real seconds.
        """
        outcome = self.check(model, time_limit_s)
        if outcome.verdict is Verdict.NOT_LINEARIZABLE:
            drawing = self.draw(outcome)
            stuck = "; ".join(str(operation) for operation in outcome.stuck[:5])
            order = "; ".join(str(operation) for operation in outcome.order[-5:])
            part = "" if outcome.key is None else f" of {outcome.key!r}"
            raise NotLinearizable(
                f"no order of the {len(self._calls)} calls{part} explains what they returned. The longest that was "
                f"found ends in: {order or 'nothing'}. After it nothing explains: {stuck}. Timeline: {drawing}",
                outcome,
                drawing,
            )
        if outcome.verdict is Verdict.UNKNOWN:
            raise Undecided(
                f"no answer within {time_limit_s} s and {outcome.steps} steps for {len(self._calls)} calls: record "
                "fewer calls, give the model a key, or wait for answers more often"
            )

    def draw(self, outcome: Outcome | None = None, path: str | Path | None = None) -> Path:
        """Draw it as a timeline into an SVG file. Gives the file."""
        if path is None:
            path = Drawings.directory / f"{Drawings.prefix}{self.name}.svg"
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(draw(self.operations, outcome, [*self.marks, *self._faults()]))
        return file

    def _faults(self) -> list[tuple[float, str]]:
        """What went wrong in the simulated worlds of the calls, from their stories."""
        worlds = {id(world): world for call in self._calls if (world := world_of(call.engine)) is not None}
        return [found for world in worlds.values() for found in world.faults_noted()]

    # -- recording -----------------------------------------------------------------------------------------------------
    def _begin(self, watched: Watched, method: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._settle()
        if any(isinstance(value, ObjectRef) for value in (*args, *kwargs.values())):
            raise TypeError(
                f"{name}() was called with a reference: a history needs the value; use actorlib.get() first"
            )
        call = _Call(watched, name, args, kwargs)
        ref = method.remote(*args, **kwargs)
        if not isinstance(ref, ObjectRef):
            raise TypeError(f"{name}() gives {type(ref).__name__}: only calls with one result can be recorded")
        call.ref = ref
        self._calls.append(call)
        call.engine.when_ready(ref, lambda: self._ended(call))
        return ref

    def _ended(self, call: _Call) -> None:
        """In the loop, which must not unpickle: in a simulation a greenlet of the caller does, else whoever comes."""
        call.ended_s = time.monotonic()
        world = world_of(call.engine)
        if world is not None:
            world.spawn(call.engine, lambda: self._take_result(call))

    def _settle(self) -> None:
        for call in self._calls:
            if call.ref is not None and call.ended_s != NEVER and call.engine is _engine.Slot.engine:
                self._take_result(call)

    def _take_result(self, call: _Call) -> None:
        ref, call.ref = call.ref, None
        if ref is None:
            return
        try:
            call.result = call.engine.get([ref], 0)[0]
        except exceptions.TaskError as error:
            call.result = Raised.of(first_cause(error))
        except exceptions.ActorlibError:
            call.result = MAYBE  # lost on its way there or back


class Watched:
    """A handle whose calls are recorded; it has the actor's methods, with ``remote`` and ``options``."""

    def __init__(self, recorder: History, handle: Any, client: str, target: str) -> None:
        self._recorder = recorder
        self._handle = handle
        self._client = client
        self._target = target

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return WatchedMethod(self, getattr(self._handle, name), name)

    def __repr__(self) -> str:
        return f"Watched({self._handle!r})"

    def __reduce__(self) -> Any:
        return find_watched, (self._recorder._id, self._handle, self._client, self._target)


class WatchedMethod:
    """A method of a watched handle."""

    __slots__ = ("_method", "_name", "_watched")

    def __init__(self, watched: Watched, method: Any, name: str) -> None:
        self._watched = watched
        self._method = method
        self._name = name

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call it, and record that."""
        return self._watched._recorder._begin(self._watched, self._method, self._name, args, kwargs)

    def options(self, **given: Any) -> WatchedMethod:
        return WatchedMethod(self._watched, self._method.options(**given), self._name)


def find_watched(number: tuple[int, int], handle: Any, client: str, target: str) -> Watched:
    """A watched handle arrives: its history must be in this process."""
    found = _living.get(number)
    if found is None:
        raise RuntimeError(
            "a watched handle came to another process than its history's, which can't record there: pass the plain "
            "handle, or record in a simulation, where all processes are one"
        )
    return Watched(found, handle, client, target)


def first_cause(error: BaseException) -> BaseException:
    """What user code raised, however many tasks it came through."""
    while isinstance(error, exceptions.TaskError) and error.cause is not None:
        error = error.cause
    return error


def world_of(engine: Any) -> Any:
    """The simulated world that an engine lives in, if it does."""
    simulation = getattr(engine, "simulation", None)
    return None if simulation is None else simulation.world


def caller() -> str:
    """Who calls: in a worker its task or method, else the thread."""
    label = getattr(_engine.current(), "running_label", None)
    return label() if label is not None else threading.current_thread().name


def history(name: str = "history") -> History:
    """A recorder of calls on actors.

    Args:
        name: of the file with the drawing.

    Example:
        >>> with history() as recorded:
        ...     register = recorded.watch(Register.remote())
        ...     actorlib.get([register.write.remote(1), register.read.remote()])
        >>> recorded.assert_linearizable(models.Register())
    """
    return History(name)
