"""The operations of the seam, each a call of Ray."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from actorlib import exceptions
from actorlib.actor import ActorHandle, MethodInfo, methods_to_wire
from actorlib.engine import (
    DYNAMIC,
    STREAMING,
    ActorOptions,
    DeadLetter,
    Down,
    DurableActors,
    FunctionRecord,
    MethodOptions,
    TaskOptions,
)
from actorlib.engines.on_ray import ends, errors, groups, hosting, options, watching
from actorlib.engines.on_ray.deadlines import Deadlines
from actorlib.engines.on_ray.durable_view import DurableView
from actorlib.engines.on_ray.hosting import Note
from actorlib.engines.on_ray.inputs import RUNNING
from actorlib.engines.on_ray.refs import RayHandle, RayRef, handle_of, restore_handle
from actorlib.engines.on_ray.streams import generator_of
from actorlib.engines.on_ray.view import RayView
from actorlib.engines.on_ray.watching import Watching
from actorlib.object_ref import ObjectRef, ObjectRefGenerator
from actorlib.transport.ids import GroupId, ObjectId
from actorlib.transport.link import Address

INTERNAL = {"__ray_call__": "actorlib_call", "__actorlib_call__": "actorlib_call", "__ray_ready__": "actorlib_ready"}
INTERNAL |= {"__ray_terminate__": "actorlib_terminate", "__actorlib_durable__": "actorlib_durable"}
KILL_S_MAX, KILL_LOOK_S = 10.0, 0.01
KV_NAMESPACE = b"actorlib"
NOBODY = "actorlib:nobody"  # no actor has this name
Hosted = tuple[Any, tuple[Any, ...]]  # Ray's class, and what makes our handles of Ray's


class RayEngine(RayView):
    """One for each process. See the package's docstring."""

    name = "ray"
    ref_type = RayRef
    handle_type = RayHandle

    def __init__(self, ends_ray: bool) -> None:
        import ray

        super().__init__(ray)
        self._ends_ray = ends_ray
        self._tasks: dict[int, tuple[TaskOptions, FunctionRecord, Any]] = {}
        self._classes: dict[int, tuple[FunctionRecord, dict[int, tuple[ActorOptions, Hosted]]]] = {}
        self._methods: dict[int, tuple[MethodOptions, dict[str, Any]]] = {}
        self._deadlines = Deadlines(self._overdue)
        self._watching = Watching(ray)
        self._caller = os.urandom(8)
        self._me = b""  # the actor that lives in this process
        self._sequences: dict[bytes, itertools.count[int]] = {}
        self._called: dict[bytes, None] = {}  # durable actors, from here
        self.closed = False

    # -- tasks ---------------------------------------------------------------------------------------------------------
    def submit(
        self, record: FunctionRecord, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> Any:
        known = self._tasks.get(id(options))
        if known is None or known[1] is not record or known[0] is not options:
            known = self._tasks[id(options)] = (options, record, self._remote_function(record, options))
        if len(self._tasks) > 10_000:
            self._tasks.clear()
        if self._me and RUNNING.call is not None and RUNNING.call.is_copy:
            return self._unsent(options.num_returns)
        args, kwargs = _as_rays(args, kwargs)
        note = self._note(options.timeout_s)
        if note is not None:
            args = (note, *args)
        try:
            result = known[2].remote(*args, **kwargs)
        except TypeError as error:
            raise errors.behind(error) from None
        return self._given(result, options.num_returns, (options.name or record.name, options.resources), note)

    def _remote_function(self, record: FunctionRecord, with_options: TaskOptions) -> Any:
        name = with_options.name or record.name
        made = hosting.make_task(record.function, name, with_options.num_returns)
        return self.ray.remote(**options.of_task(with_options))(made)

    def _note(self, timeout_s: float | None) -> Note | None:
        inherited = hosting.EXPIRES_AT.get()
        if timeout_s is None and inherited is None:
            return None
        own = None if timeout_s is None else time.time() + timeout_s
        limits = [limit for limit in (own, inherited) if limit is not None]
        return Note(min(limits))

    def _given(self, result: Any, count: int, about: tuple[Any, ...], note: Note | None) -> Any:
        expires_at = None
        if note is not None and note.expires_at is not None:
            expires_at = time.monotonic() + note.expires_at - time.time()
        if count == STREAMING:
            generator = generator_of(result, about, expires_at)
            if expires_at is not None:
                self._deadlines.add(expires_at, weakref.ref(generator.completed()))
            return generator
        if count in (1, DYNAMIC):
            ref = RayRef(result, about, expires_at)
            if expires_at is not None:
                self._deadlines.add(expires_at, weakref.ref(ref))
            return ref
        if count == 0:
            return None
        return [RayRef(one, about, expires_at) for one in result]

    def _unsent(self, count: int) -> Any:
        """For a call that a copy of a durable actor would have made."""
        refs = [RayRef(self.ray.put(None)) for _ in range(max(count, 1))]
        return None if count == 0 else refs if count > 1 else refs[0]

    def _overdue(self, ref: RayRef) -> None:
        """A deadline has passed: what runs still is told."""
        if not self.closed:
            with contextlib.suppress(
                TypeError, ValueError
            ):  # not a call of ours, or it can't be interrupted; get() tells
                self._cancel(ref.rays, force=False, recursive=True)

    # -- actors --------------------------------------------------------------------------------------------------------
    def create_actor(
        self,
        record: FunctionRecord,
        methods: dict[str, MethodInfo],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
    ) -> ActorHandle[Any]:
        remote_class, about = self._remote_class(record, methods, options)
        args, kwargs = _as_rays(args, kwargs)
        try:
            handle = restore_handle(remote_class.remote(*args, **kwargs), *about)
        except TypeError as error:
            raise errors.behind(error) from None
        if options.name:
            self._remember(handle)
        return handle

    def _remote_class(
        self, record: FunctionRecord, methods: dict[str, MethodInfo], with_options: ActorOptions
    ) -> Hosted:
        known = self._classes.setdefault(id(record), (record, {}))[1]
        found = known.get(id(with_options))
        if found is None or found[0] is not with_options:
            extra: dict[str, Any] = {
                "durable": with_options.checkpoint is not None,
                "checkpoint": with_options.checkpoint,
                "concurrency_groups": tuple(with_options.concurrency_groups),
                "timeout_s": with_options.timeout_s,
            }
            about = (record.name.rsplit(".", 1)[-1], methods_to_wire(methods), extra)
            settings = {name: options.of_method_in_class(info.options) for name, info in methods.items()}
            made = hosting.make_class(record.function, with_options.checkpoint, settings, about)
            remote_class = self.ray.remote(**options.of_actor(with_options))(made)
            found = known[id(with_options)] = (with_options, (remote_class, about))
        return found[1]

    def _remember(self, handle: RayHandle) -> None:
        """What Ray's handle can't tell those who find the actor by its name."""
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(handle._actor_id, self._pickled(handle), namespace=KV_NAMESPACE)

    @staticmethod
    def _pickled(handle: RayHandle) -> bytes:
        from actorlib import serialization

        _, (_, class_name, methods, extra) = handle.__reduce__()
        return serialization.serialize((class_name, methods, extra)).data

    def find_actor(self, name: str, namespace: str | None) -> ActorHandle[Any]:
        from ray.experimental.internal_kv import _internal_kv_get

        from actorlib import serialization

        try:
            rays = self.ray.get_actor(name, namespace=namespace)
        except ValueError as error:
            raise ValueError(
                f"there is no actor named {name!r} in namespace {namespace or self.namespace!r}: {error}"
            ) from error
        kept = _internal_kv_get(rays._actor_id.binary(), namespace=KV_NAMESPACE)
        return restore_handle(rays, *serialization.deserialize(kept)) if kept else handle_of(rays)

    def call(
        self,
        handle: ActorHandle[Any],
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: MethodOptions,
    ) -> Any:
        if handle._actor_id == self._me and hosting.FUNCTION.get() is None:  # from a thread of its own, not a method
            return RayRef(self._watching.relay(handle, method, args, kwargs))
        rays, extra = handle._rays, handle._extra
        given = self._method_options(options)
        target = getattr(rays, INTERNAL.get(method, method))
        if given:
            target = target.options(**given)
        args, kwargs = _as_rays(args, kwargs)
        note = self._note(options.timeout_s if options.timeout_s is not None else extra.get("timeout_s"))
        running = RUNNING.call if self._me else None
        if running is not None and running.is_copy:
            return self._unsent(options.num_returns)
        if extra.get("durable"):
            note = note or Note(None)
            if running is not None:
                note.caller, note.sequence = running.next_voice()
            else:
                note.caller = self._caller
                note.sequence = next(self._sequences.setdefault(handle._actor_id, itertools.count(1)))
            note.again = handle._actor_id in self._called
            self._called[handle._actor_id] = None
        if note is not None:
            args = (note, *args)
        if self._watching.listeners:
            self._watching.look_for_dead_letter(handle, method)
        try:
            result = target.remote(*args, **kwargs)
        except TypeError as error:
            raise errors.behind(error) from None
        except self.ray.exceptions.RayError as error:
            raise errors.ours(error) from error
        return self._given(result, options.num_returns, (f"{handle._class_name}.{method}", None), note)

    def _method_options(self, with_options: MethodOptions) -> dict[str, Any]:
        known = self._methods.get(id(with_options))
        if known is None or known[0] is not with_options:
            if len(self._methods) > 10_000:
                self._methods.clear()
            known = self._methods[id(with_options)] = (with_options, options.of_method(with_options))
        return known[1]

    # -- objects -------------------------------------------------------------------------------------------------------
    def put(self, value: Any) -> RayRef:
        try:
            return RayRef(self.ray.put(value))
        except TypeError as error:
            raise errors.behind(error) from None

    def get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        if self._me and RUNNING.call is not None:
            values: list[Any] = RUNNING.call.learn("get", lambda: self._get(refs, timeout))
            return values
        return self._get(refs, timeout)

    def _get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        rays = [ref.rays for ref in refs]  # type: ignore[attr-defined]
        ends_at = None if timeout is None else time.monotonic() + timeout
        if hosting.in_async_method():
            self._refuse_blocking(rays)
        try:
            deadlines = self._deadlines_of(refs)
            if not deadlines:
                found: list[Any] = self.ray.get(rays, timeout=timeout)
                return found
            return self._get_in_time(rays, refs, timeout, min(deadlines))
        except self.ray.exceptions.GetTimeoutError as error:
            raise exceptions.GetTimeoutError(self._timeout_text(refs, timeout)) from error
        except Exception as error:
            raised = error if len(rays) == 1 else self._first_error(rays, ends_at) or error
            late = next((ref for ref in refs if ref.is_late), refs[0])  # type: ignore[attr-defined]
            mapped = late.raised(raised)  # type: ignore[attr-defined]
            raise mapped from mapped.__cause__

    def _deadlines_of(self, refs: Sequence[ObjectRef[Any]]) -> list[float]:
        """Until when to wait: for each that is not there yet and has a deadline, and for whoever asks."""
        found = {ref.rays: ref.expires_at for ref in refs if ref.expires_at is not None}  # type: ignore[attr-defined]
        if found:
            for rays in self.ray.wait(list(found), num_returns=len(found), timeout=0, fetch_local=False)[0]:
                del found[rays]
        own = hosting.EXPIRES_AT.get()
        return [*found.values(), *([] if own is None else [time.monotonic() + own - time.time()])]

    def _first_error(self, rays: list[Any], ends_at: float | None) -> Exception | None:
        """The first by position: of several that fail, Ray raises the one that it hears of first."""
        for one in rays:
            try:
                self.ray.get(one, timeout=None if ends_at is None else max(0.0, ends_at - time.monotonic()))
            except self.ray.exceptions.GetTimeoutError:
                return None
            except Exception as error:
                return error
        return None

    def _get_in_time(
        self, rays: list[Any], refs: Sequence[ObjectRef[Any]], timeout: float | None, deadline: float
    ) -> list[Any]:
        left = max(0.0, deadline - time.monotonic())
        if timeout is not None and timeout < left:
            found: list[Any] = self.ray.get(rays, timeout=timeout)
            return found
        try:
            return self.ray.get(rays, timeout=left)  # type: ignore[no-any-return]
        except self.ray.exceptions.GetTimeoutError as error:
            late: Any = next((ref for ref in refs if ref.is_late), refs[0])  # type: ignore[attr-defined]
            self._overdue(late)
            raise late.too_late() from error

    def _refuse_blocking(self, rays: list[Any]) -> None:
        if rays and len(self.ray.wait(rays, num_returns=len(rays), timeout=0)[0]) < len(rays):
            raise RuntimeError(
                "a blocking get() or wait() inside an async method would stop the actor's event loop; "
                "use 'await ref' or 'await asyncio.wait(refs)' instead"
            )

    def _timeout_text(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> str:
        by_rays = {ref.rays: ref for ref in refs}  # type: ignore[attr-defined]
        _, pending = self.ray.wait(list(by_rays), num_returns=len(by_rays), timeout=0)
        shown = "; ".join(self.why_pending(by_rays[rays]) for rays in pending[:3])
        more = f" (and {len(pending) - 3} more)" if len(pending) > 3 else ""
        return f"{len(pending)} of the objects were not there within {timeout} s: {shown}{more}"

    def why_pending(self, ref: ObjectRef[Any]) -> str:
        demand = ref.about[1] if ref.about else None  # type: ignore[attr-defined]
        never = self.why_never(demand) if demand else ""
        return f"{ref.name} is pending{never}"  # type: ignore[attr-defined]

    def wait(
        self, refs: Sequence[ObjectRef[Any]], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        if self._me and RUNNING.call is not None:
            return self._wait_in_durable(refs, num_returns, timeout, fetch_local)
        return self._wait(refs, num_returns, timeout, fetch_local)

    def _wait_in_durable(
        self, refs: Sequence[ObjectRef[Any]], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        """Which were ready is learned by their places: when the call is run again, the references are others."""
        places = {ref: place for place, ref in enumerate(refs)}

        def ask() -> list[int]:
            return [places[ref] for ref in self._wait(refs, num_returns, timeout, fetch_local)[0]]

        assert RUNNING.call is not None
        ready = RUNNING.call.learn("wait", ask)
        return [refs[place] for place in ready], [ref for place, ref in enumerate(refs) if place not in ready]

    def _wait(
        self, refs: Sequence[ObjectRef[Any]], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        by_rays = {ref.rays: ref for ref in refs}  # type: ignore[attr-defined]
        rays = list(by_rays)
        if hosting.in_async_method() and timeout != 0:
            self._refuse_blocking(rays)
        ready, rest = self.ray.wait(rays, num_returns=num_returns, timeout=timeout, fetch_local=fetch_local)
        return [by_rays[one] for one in ready], [by_rays[one] for one in rest]

    def when_ready(self, ref: ObjectRef[Any], callback: Callable[[], None]) -> None:
        ref.rays.future().add_done_callback(lambda _: callback())  # type: ignore[attr-defined]

    def adopt_ref(self, object_id: ObjectId, owner: Address) -> ObjectRef[Any]:
        raise exceptions.WrongEngineError(f"object {object_id.hex()} is of another engine than 'ray'")

    def pin_forever(self, ref: ObjectRef[Any]) -> None:
        """Ray counts what its own pickler sees, and pins the rest."""

    # -- generators ----------------------------------------------------------------------------------------------------
    def next_item(self, generator: ObjectRefGenerator[Any], timeout: float | None) -> RayRef | None:
        item: RayRef | None = generator._state[0].next_item(timeout)
        return item

    def when_item(self, generator: ObjectRefGenerator[Any], callback: Callable[[], None]) -> None:
        import asyncio

        stream = generator._state[0]

        async def follow() -> None:
            await stream.take()
            callback()

        generator._following = asyncio.get_running_loop().create_task(follow())  # type: ignore[attr-defined]

    def close_generator(self, generator: ObjectRefGenerator[Any]) -> None:
        state, generator._state = generator._state, None
        del state  # Ray stops a stream that nobody refers to

    # -- control -------------------------------------------------------------------------------------------------------
    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None:
        self._cancel(ref.rays, force, recursive)  # type: ignore[attr-defined]

    def _cancel(self, rays: Any, force: bool, recursive: bool) -> None:
        """Two moments at which Ray's cancel ends the whole process inside of Ray are stepped round.

        Before Ray has taken in a submission that waits for an argument ("Check failed: submitted_task_ref_count > 0"):
        a question that Ray's own loop answers comes back after that. And when a result is just being taken in ("Tried
        to complete task that was not pending"): what is done stays as it is, and Ray is not asked.
        """
        with contextlib.suppress(ValueError):
            self.ray.get_actor(NOBODY)
        if not self.ray.wait([rays], timeout=0, fetch_local=False)[0]:
            self.ray.cancel(rays, force=force, recursive=recursive)

    def kill(self, handle: ActorHandle[Any], no_restart: bool) -> None:
        """Ray's kill is a request; ours returns when it has happened, so that no later call reaches the old worker."""
        before = self.lives(handle)
        self.ray.kill(handle._rays, no_restart=no_restart)
        deadline = time.monotonic() + KILL_S_MAX
        if before is None or before[0] == "DEAD":
            return
        while self.lives(handle) == before and time.monotonic() < deadline:
            time.sleep(KILL_LOOK_S)

    def list_named_actors(self, all_namespaces: bool) -> list[tuple[str, str]]:
        found = self.ray.util.list_named_actors(all_namespaces=True)
        pairs = [(row["namespace"], row["name"]) for row in found if row["namespace"] != watching.NAMESPACE]
        return [pair for pair in pairs if all_namespaces or pair[0] == self.namespace]

    # -- placement groups ----------------------------------------------------------------------------------------------
    def create_group(
        self,
        bundles: Sequence[dict[str, int]],
        strategy: str,
        name: str,
        detached: bool,
        label_selectors: Sequence[dict[str, str]],
    ) -> GroupId:
        return groups.create(bundles, strategy, name, detached, label_selectors)

    def remove_group(self, group_id: GroupId) -> None:
        groups.remove(group_id)

    def wait_group(self, group_id: GroupId, timeout: float | None) -> bool:
        return groups.wait(group_id, timeout)

    def group_ready_ref(self, group_id: GroupId) -> RayRef:
        return RayRef(groups.ready(group_id), (f"placement group {group_id.hex()}", None))

    def group_table(self, group_id: GroupId | None, name: str | None) -> list[dict[str, Any]]:
        return groups.rows(group_id, name)

    # -- inside an actor -----------------------------------------------------------------------------------------------
    def exit_actor(self) -> None:
        if self.ray.get_runtime_context().get_actor_id() is None:
            raise ValueError("exit_actor() is for the methods of an actor; this is not one")
        self._watching.give_up()
        self.ray.actor.exit_actor()

    def becomes(self, actor_id: str, about: tuple[Any, ...]) -> None:
        """An actor is about to live in this process; ``about`` is what its handles know."""
        self._me, self.about_me = bytes.fromhex(actor_id), about

    def could_not_become(self) -> None:
        """Its constructor has raised."""
        self._watching.give_up()

    def fail_actor(self, error: Exception) -> NoReturn:
        about = self.ray.get_runtime_context()
        if about.get_actor_id() is None:
            raise ValueError("only an actor can fail for good, from inside one of its methods")
        ends.note(about.get_actor_id(), "failed", f"it gave up: {error}", error)
        self.exit_actor()
        raise AssertionError("exit_actor() returned")

    def checkpoint_now(self) -> None:
        self._durable("checkpoint_now()").save()

    def _durable(self, what: str) -> Any:
        from actorlib.engines.on_ray import durable

        if self.ray.get_runtime_context().get_actor_id() is None:
            raise ValueError(f"{what} is for the methods of an actor; this is not one")
        if not durable.CURRENT:
            raise ValueError(f"{what} is for actors with the option checkpoint=...; this one has none")
        return durable.CURRENT[0]

    def record_once(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = RUNNING.call
        return function(*args, **kwargs) if call is None else call.learn("record", lambda: function(*args, **kwargs))

    def durable(self) -> DurableActors:
        return DurableView(self)

    # -- supervision ---------------------------------------------------------------------------------------------------
    def monitor(self, handle: ActorHandle[Any]) -> ObjectRef[Down]:
        return RayRef(self._watching.monitor(handle), (f"the end of {handle._class_name}", None))

    def link_actors(self, first: ActorHandle[Any], second: ActorHandle[Any]) -> None:
        try:
            self._watching.link(first, second)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error

    def listen_to_dead_letters(self, listener: Callable[[DeadLetter], None]) -> Callable[[], None]:
        return self._watching.listen(listener)

    # -- life ----------------------------------------------------------------------------------------------------------
    def shutdown(self) -> None:
        if self.ray._private.worker.global_worker.mode == self.ray._private.worker.WORKER_MODE:
            raise exceptions.ActorlibError("a worker can't shut down the session; only its driver can")
        self.closed = True
        self._deadlines.close()
        if self._ends_ray:
            self.ray.shutdown()


def _as_rays(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """References at top level as Ray's, so that Ray gives their values."""
    for value in args:
        if type(value) is RayRef:
            args = tuple(one.rays if type(one) is RayRef else one for one in args)
            break
    if kwargs:
        kwargs = {key: value.rays if type(value) is RayRef else value for key, value in kwargs.items()}
    return args, kwargs
