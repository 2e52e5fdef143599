"""The loop on real sockets."""

from __future__ import annotations

import os
import select
import threading
import time

import pytest
from zmq.backend import zmq_poll

from actorlib.transport import codec, limits, messages
from tests.conftest import eventually


def echo(link, message):
    link.send(messages.DebugPong(*message))


def ask(loop, to, count):
    def send(_):
        for i in range(count):
            loop.link(to).send(messages.DebugPing(i, b"x"))

    loop.post(send, None)


def test_requests_and_replies_in_order(loops):
    server = loops({messages.DebugPing: echo})
    got = []
    client = loops({messages.DebugPong: lambda _, message: got.append(message.request_id)})
    ask(client, server.address, 5000)
    assert client.drive(lambda: len(got) == 5000, 10)
    assert got == list(range(5000))


def test_a_message_to_ourselves(loops):
    got = []
    loop = loops({messages.DebugPing: lambda _, message: got.append(message.request_id)})
    ask(loop, loop.address, 3)
    assert loop.drive(lambda: len(got) == 3, 5)


def test_many_threads_wait_at_once(loops):
    server = loops({messages.DebugPing: echo})
    got = {}
    client = loops({messages.DebugPong: lambda _, message: got.setdefault(message.request_id, True)})
    done = []

    def wait(i):
        client.post(lambda _: client.link(server.address).send(messages.DebugPing(i, b"")), None)
        done.append(client.drive(lambda: i in got, 10))

    threads = [threading.Thread(target=wait, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert done == [True] * 20


def test_the_helper_serves_while_nobody_drives(loops):
    server = loops({messages.DebugPing: echo})
    got = []
    client = loops({messages.DebugPong: lambda _, message: got.append(1)})
    time.sleep(0.1)  # both helpers are quiet now, so they must be woken
    ask(client, server.address, 10)
    deadline = time.monotonic() + 5
    while len(got) < 10 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(got) == 10


def test_what_arrives_while_a_timer_sends_is_seen(loops, monkeypatch):
    """A timer's send, as of an acknowledgement, takes the signal of an answer that came since the sockets were read."""
    monkeypatch.setattr(limits, "shortcuts_max", 0)
    server = loops({messages.DebugPing: echo})
    got = []
    client = loops({messages.DebugPong: lambda _, message: got.append(message.request_id)}, helper=False)
    ask(client, server.address, 1)
    assert client.drive(lambda: got == [0], 10)
    link = client.link(server.address)
    slept_beside_it = []

    def block(patience_s):
        slept_beside_it.append(bool(zmq_poll(client._both, 0)))

    def ask_and_swallow_the_signal():
        link.send(messages.DebugPing(1, b""))
        client._flush()
        assert select.select([client._outbox_fd], [], [], 10)[0], "no answer"
        deadline = time.monotonic() + 10
        while select.select([client._outbox_fd], [], [], 0.001)[0]:  # libzmq looks at its signals now and then
            client._send_frames(link, [link.session.acknowledgement()])
            assert time.monotonic() < deadline
        client._block = block

    client.call_later(0.0, ask_and_swallow_the_signal)
    assert client.drive(lambda: got == [0, 1], 20)
    assert not any(slept_beside_it), "it would have slept beside the answer"


def test_a_helper_that_wakes_up_leaves_the_call_to_whoever_drives(loops):
    """Both sleep for the same descriptors; the one that can't take the loop must not take the signal either."""
    loop = loops({}, helper=False)
    assert loop.run(lambda: True)  # the sockets' own first signals are gone
    os.eventfd_write(loop._wake_fd, 1)
    loop._sleep_unheld()  # as the helper does: it wakes up, and finds that somebody else has the loop
    driver = threading.Thread(target=lambda: loop._block(20.0))
    driver.start()
    driver.join(10)
    assert not driver.is_alive(), "the call to wake up was lost"


def test_timers_fire_in_order_and_can_be_cancelled(loops):
    loop = loops({})
    fired = []

    def begin(_):
        loop.call_later(0.02, lambda: fired.append("second"))
        loop.call_later(0.01, lambda: fired.append("first"))
        loop.call_later(0.015, lambda: fired.append("never")).cancel()

    loop.post(begin, None)
    assert loop.drive(lambda: len(fired) == 2, 5)
    assert fired == ["first", "second"]


def test_run_gives_the_result_and_raises_the_error(loops):
    loop = loops({})
    assert loop.run(lambda: 5) == 5
    with pytest.raises(KeyError):
        loop.run(lambda: {}["x"])


def test_a_handler_that_drives_is_refused(loops):
    errors = []
    loop = loops({})

    def bad(_):
        try:
            loop.drive(lambda: False, 1)
        except RuntimeError as error:
            errors.append(str(error))

    loop.post(bad, None)
    assert loop.drive(lambda: bool(errors), 5)
    assert "must not wait" in errors[0]


def test_a_dropped_link_is_down_and_reported_once(loops):
    downs = []
    server = loops({messages.DebugPing: echo})
    got = []
    client = loops(
        {messages.DebugPong: lambda _, message: got.append(1)}, lambda link, reason: downs.append((link.peer, reason))
    )
    ask(client, server.address, 1)
    assert client.drive(lambda: bool(got), 5)
    link = client.run(lambda: client.link(server.address))
    client.run(lambda: client.drop_link(server.address.process_id, "gone"))
    assert link.is_down and downs == [(server.address, "gone")]
    client.run(lambda: link.send(messages.DebugPing(1, b"")))


def test_a_peer_that_was_dropped_can_be_dialled_again_at_once(loops):
    ended = []
    server = loops({messages.DebugPing: echo}, lambda link, reason: ended.append(reason))
    got = []
    client = loops({messages.DebugPong: lambda _, message: got.append(message.request_id)})
    for i in range(50):
        ask(client, server.address, 1)
        assert client.drive(lambda i=i: len(got) == i + 1, 5)
        client.run(lambda: client.drop_link(server.address.process_id, "again"))
    assert got == [0] * 50
    assert ended == ["the peer has begun a new session"] * 49


def test_a_handler_that_raises_answers_the_question_all_the_same(loops, capfd):
    def broken(link, message):
        raise ValueError("bug")

    server = loops({messages.DebugPing: broken})
    got = []
    client = loops({messages.Failure: lambda _, message: got.append(message)})
    client.post(lambda _: client.link(server.address).send(messages.DebugPing(9, b"")), None)
    assert client.drive(lambda: bool(got), 5)
    assert got[0].request_id == 9 and "bug" in got[0].text
    assert "handling DebugPing failed" in capfd.readouterr().err


def test_an_idle_loop_sleeps(loops):
    loop = loops({})
    time.sleep(0.2)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.05
    assert loop.run(lambda: True)


def test_another_version_is_told_so(loops, capfd):
    server = loops({messages.DebugPing: echo})
    downs = []
    client = loops({}, lambda link, reason: downs.append(reason))
    client.hello = client.hello._replace(protocol_version=messages.PROTOCOL_VERSION + 1)
    ask(client, server.address, 1)
    assert client.drive(lambda: bool(downs), 10)
    assert f"protocol version {messages.PROTOCOL_VERSION + 1}" in downs[0]
    deadline, told = time.monotonic() + 10, ""
    while "protocol version" not in told and time.monotonic() < deadline:
        told += capfd.readouterr().err
        time.sleep(0.01)
    assert "protocol version" in told


def test_a_closed_stderr_does_not_end_the_loop(loops, monkeypatch):
    server = loops({messages.DebugPing: lambda link, message: 1 / 0})
    got = []
    client = loops({messages.Failure: lambda _, message: got.append(message)})
    closed = open(os.devnull, "w")  # noqa: SIM115
    closed.close()
    monkeypatch.setattr("sys.stderr", closed)
    ask(client, server.address, 4)
    assert client.drive(lambda: len(got) == 3, 10)  # the question with the number 0 wants no answer


def dawdle():
    time.sleep(0.3)


def test_in_debug_mode_whoever_holds_the_loop_is_named_with_a_stack(loops, monkeypatch, capfd):
    monkeypatch.setenv("ACTORLIB_DEBUG", "1")
    loop = loops({})
    done = []
    loop.call_later(0.0, lambda: (dawdle(), done.append(1)))  # a timer, not a message: every way in is watched
    assert loop.drive(lambda: bool(done), 10)
    told = capfd.readouterr().err
    assert "the loop has been held for 0." in told and "in dawdle" in told and "time.sleep(0.3)" in told


def test_a_loop_that_waits_is_not_held(loops, monkeypatch, capfd):
    monkeypatch.setenv("ACTORLIB_DEBUG", "1")
    loop = loops({})
    assert not loop.drive(lambda: False, 0.3)
    assert "held" not in capfd.readouterr().err


def test_the_trace_is_kept_in_files_of_bounded_size(loops, monkeypatch, tmp_path):
    monkeypatch.setenv("ACTORLIB_DEBUG", "1")
    monkeypatch.setattr(limits, "trace_bytes_max", 20_000)
    server = loops({messages.DebugPing: echo}, trace_dir=str(tmp_path))
    got = []
    client = loops({messages.DebugPong: lambda _, message: got.append(message.request_id)})
    ask(client, server.address, 2000)
    assert client.drive(lambda: len(got) == 2000, 20)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) == 1 + limits.trace_files_kept_max
    assert all(path.stat().st_size <= 20_000 for path in tmp_path.iterdir())
    assert "DebugPong" in (tmp_path / files[0]).read_text()


def test_what_is_too_much_for_one_batch_leaves_in_several(loops, monkeypatch):
    monkeypatch.setattr(limits, "batch_body_bytes_max", 1000)
    server = loops({messages.DebugPing: echo})
    got = []
    client = loops({messages.DebugPong: lambda _, message: got.append(message.request_id)})
    client.post(
        lambda _: [client.link(server.address).send(messages.DebugPing(i, bytes(300))) for i in range(100)], None
    )
    assert client.drive(lambda: len(got) == 100, 10)
    assert got == list(range(100))


def test_what_is_asked_for_upon_something_large_leaves_before_the_rest_is_taken(loops, monkeypatch):
    """Else chunks of an object come in bursts, as many as were asked for, with a pause after each."""
    order = []

    def send_all(link, _):
        for number in range(8):
            link.send(messages.DebugPong(number, codec.InPlace(memoryview(bytes(limits.frame_bytes_copied_max)))))

    monkeypatch.setattr(limits, "batch_messages_max", 1)  # each comes alone, as chunks do
    server = loops({messages.DebugPing: send_all}, helper=False)
    client = loops({messages.DebugPong: lambda link, _: ask_more(link)}, helper=False)

    def ask_more(link):
        order.append("taken")
        link.send(messages.DebugPing(1, b""))

    ask(client, server.address, 1)
    client.drive(lambda: False, 0.01)
    send = client._send_frames
    monkeypatch.setattr(client, "_send_frames", lambda link, frames: (order.append("sent"), send(link, frames)))
    assert eventually(lambda: server.drive(lambda: False, 0.01) or client._epoll.poll(0), 10)
    client.drive(lambda: order.count("taken") >= 8, 10)
    assert order[:15] == ["taken", "sent"] * 7 + ["taken"]


def test_what_a_stopped_peer_has_not_taken_is_known(loops):
    server = loops({messages.DebugPing: echo}, helper=False)
    got = []
    client = loops({messages.DebugPong: lambda _, message: got.append(message.request_id)})
    link = client.run(lambda: client.link(server.address))
    for number in range(20):
        client.run(lambda number=number: link.send(messages.DebugPing(number, bytes(100_000))))
    assert client.run(lambda: client.bytes_on_the_way(link)) > 2_000_000
    deadline = time.monotonic() + 20
    while client.run(lambda: client.bytes_on_the_way(link)) and time.monotonic() < deadline:
        server.drive(lambda: False, 0.01)
    assert client.run(lambda: client.bytes_on_the_way(link)) == 0 and got == list(range(20))
