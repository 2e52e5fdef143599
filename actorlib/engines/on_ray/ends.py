"""How an actor on Ray ended: from Ray's tables, and from notes of ours where we know better.

An actor that was ended since it was linked with another, or that gave up, is for Ray one that was killed or left. What
it really was stands in Ray's key-value table, under the actor's id, until its job is over.
"""

from __future__ import annotations

from typing import Any

from actorlib import serialization
from actorlib.engine import Down

NAMESPACE = b"actorlib-ends"
NORMAL = ("exited", "released")
# What Ray's words about a death say of its kind, the first that is found counts.
KINDS = (
    ("RAY_KILL", "killed"),
    ("creation_task_failure", "failed"),
    ("INTENDED_USER_EXIT", "exited"),
    ("exit_actor", "exited"),
    ("OUT_OF_SCOPE", "released"),
    ("REF_DELETED", "released"),
    ("OWNER_DIED", "ownerless"),
    ("unschedulable", "unplaceable"),
    ("ray.kill", "killed"),
    ("out of scope", "released"),
    ("owner has died", "ownerless"),
)


def note(actor_id: str, kind: str, reason: str, error: BaseException | None = None) -> None:
    """Keep what Ray can't know of an end that is about to happen."""
    from ray.experimental.internal_kv import _internal_kv_put

    packed = serialization.serialize((kind, reason, error), in_band=True).data
    _internal_kv_put(_key(actor_id), packed, namespace=NAMESPACE)


def noted(actor_id: str | None) -> tuple[str, str, BaseException | None] | None:
    """What was noted of an actor's end: kind, reason, and the error for those who call it."""
    from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_initialized

    if not actor_id or not _internal_kv_initialized():
        return None
    found = _internal_kv_get(_key(actor_id), namespace=NAMESPACE)
    return None if found is None else serialization.deserialize(found)


def forget_job(job_id: str) -> None:
    """Drop what was noted of a job's actors."""
    from ray.experimental.internal_kv import _internal_kv_del

    _internal_kv_del(bytes.fromhex(job_id), del_by_prefix=True, namespace=NAMESPACE)


def _key(actor_id: str) -> bytes:
    """The job's part of an actor's id comes first, so that one prefix has all of a job."""
    raw = bytes.fromhex(actor_id)
    return raw[-4:] + raw


def down(actor_id: str, class_name: str, row: dict[str, Any]) -> Down:
    """What a monitor gives, from the row that Ray has of a dead actor."""
    known = noted(actor_id)
    kind, reason = known[:2] if known is not None else kind_and_reason(row)
    return Down(actor_id, class_name, kind, reason, kind in NORMAL, row.get("Pid") or None, None, None)


def kind_and_reason(row: dict[str, Any]) -> tuple[str, str]:
    """From Ray's words."""
    cause = row.get("DeathCause")
    text = str(cause or "")
    kind = next((kind for words, kind in KINDS if words in text), "crashed")
    for part in ("actor_died_error_context", "creation_task_failure_context", "actor_unschedulable_context"):
        inner = getattr(cause, part, None)
        said = getattr(inner, "error_message", "") or getattr(inner, "formatted_exception_string", "")
        if said:
            return kind, said
    return kind, text.strip() or "Ray says that it is dead"
