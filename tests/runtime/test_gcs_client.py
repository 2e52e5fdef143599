"""What is asked again of a GCS that has begun anew."""

from __future__ import annotations

from actorlib.runtime.gcs_client import GcsClient
from actorlib.transport import messages as m


def test_what_is_not_answered_is_said_again_in_order_and_once_a_life():
    client = GcsClient()
    first, second, third = (m.KvGet(number, "space", b"key") for number in (1, 2, 3))
    for message in (first, second, third, m.TaskEvents((), 0), m.ActorSubscribe(b"a" * 16), m.JobEnded(b"j" * 8, "")):
        client.sent(message)
    client.answered(2)
    client.answered(9)
    assert client.started(2) == [first, third]
    assert client.started(2) is None and client.started(1) is None
    client.answered(1)
    assert client.started(3) == [third]
