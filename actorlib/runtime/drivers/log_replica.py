"""Level ``replicated`` at work: the worker's side that sends its log, and the node's side that keeps a copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actorlib.runtime.call_log_format import HEAD, Record, decode, encode
from actorlib.runtime.drivers.call_log_file import Files
from actorlib.runtime.log_copies import Fences, Gate
from actorlib.transport import limits, messages
from actorlib.transport.codec import InPlace
from actorlib.transport.ids import TASK_ID_BYTES, ActorId, ProcessId
from actorlib.transport.link import Address, Handler, Link

if TYPE_CHECKING:
    from actorlib.runtime.drivers.durability import Durability

COPY = 0  # the number of the only segment that a copy is


class LogCopies:
    """The copies that a node keeps of the logs of others, one file each; and the end of what actors leave here.

    Args:
        files: The node's disk.
        directory: For copies, a folder for each actor.
        logs: The directory of the node's own actors' logs and checkpoints.
        call_later: The node's timer.
    """

    def __init__(
        self, files: Files, directory: str, logs: str, call_later: Callable[[float, Callable[[], None]], Any]
    ) -> None:
        self._files = files
        self._directory = directory
        self._logs = logs
        self._call_later = call_later
        self._fences = Fences()
        m = messages
        self.handlers: dict[type, Handler] = {
            m.LogAppend: self._on_append,
            m.LogFetch: self._on_fetch,
            m.LogForget: self._on_forget,
        }

    def _path(self, actor_id: ActorId) -> str:
        return f"{self._directory}/{actor_id.hex()}/copy"

    def _on_append(self, link: Link, message: messages.LogAppend) -> None:
        if not self._fences.admits(message.actor_id, message.incarnation):
            link.send(messages.LogRefused(message.actor_id, message.incarnation))
            return
        path = self._path(message.actor_id)
        if message.begins:
            self._files.remove(path)
        try:
            self._files.append(path, bytes(message.data))
            self._files.sync(path)
        except OSError as error:
            link.send(messages.LogNotKept(message.actor_id, str(error)))
            return
        link.send(messages.LogAppended(message.actor_id, message.number))

    def _on_fetch(self, link: Link, message: messages.LogFetch) -> None:
        self._fences.admits(message.actor_id, message.incarnation)
        try:
            data = self._files.read(self._path(message.actor_id))
        except FileNotFoundError:
            data = b""
        link.send(messages.LogCopy(message.request_id, InPlace(data)))

    def held_logs(self) -> list[ActorId]:
        """The actors of which something lies here."""
        found: dict[ActorId, None] = {}
        for folder in (self._directory, self._logs, f"{self._logs}/checkpoints"):
            for path in self._files.paths(f"{folder}/"):
                name = path[len(folder) + 1 :].partition("/")[0]
                if len(name) == 2 * TASK_ID_BYTES:
                    found[ActorId(bytes.fromhex(name))] = None
        return list(found)

    def _on_forget(self, _: Link, message: messages.LogForget) -> None:
        self._fences.forget(message.actor_id)
        actor = message.actor_id.hex()
        folders = [f"{self._directory}/{actor}", f"{self._logs}/{actor}"]
        if message.checkpoints:
            folders.append(f"{self._logs}/checkpoints/{actor}")
        self._call_later(limits.log_forget_delay_s, lambda: self._remove(folders))

    def _remove(self, folders: list[str]) -> None:
        for folder in folders:
            for path in self._files.paths(f"{folder}/"):
                self._files.remove(path)
            self._files.remove_folder(folder)

    def process_died(self, process_id: ProcessId, reason: Any) -> None:
        """A copy outlives the process that it is of: that is what it is for."""


class LogReplica:
    """Sends the log of one actor to another node, and holds back what depends on it until it is there."""

    def __init__(self, worker: Durability) -> None:
        self._worker = worker
        self.gate = Gate()
        self._node: Address | None = None
        self._bytes = 0
        self._alone = False

    # -- finding a node ------------------------------------------------------------------------------------------------
    def begin(self, views: tuple[messages.NodeView, ...]) -> None:
        """Choose a node and send it all of the log. Runs in the loop."""
        worker = self._worker
        others = [view.address for view in views if view.alive and view.address.node_id != worker.node.node_id]
        if not others:
            self._go_alone()
            return
        assert worker.spec is not None
        self._alone = False
        self._node = others[worker.spec.actor_id[-1] % len(others)]
        # Past the gate: if that node is gone already, nothing but the answer to this will open it.
        worker.loop.release([(worker.node_link, [messages.Watch(self._node)])])
        self.gate.passes = worker.loop.link(self._node)
        self.send([worker.log_file.head, *(r for r in worker.log_file.whole() if r[0] != HEAD)], begins=True)

    def _go_alone(self) -> None:
        """No other node is there: better to go on, and say so, than to stop."""
        if not self._alone:
            self._worker.say("no other node is there to hold its log; until one is, durability is that of 'disk'")
        self._alone = True
        self._node = self.gate.passes = None
        self._release(self.gate.sent)
        self._worker.loop.call_later(limits.checkpoint_retry_s, self.look_again)

    def look_again(self) -> None:
        worker = self._worker
        request_id = worker.ids.request_id()
        worker._answers[request_id] = self._nodes_known
        # Past the gate: it stays shut until there is an answer.
        worker.loop.release([(worker.link(worker.gcs), [messages.NodesList(request_id)])])
        worker.loop.call_later(limits.log_fetch_timeout_s, lambda: self._ask_again(request_id))

    def _ask_again(self, request_id: int) -> None:
        """What goes past the gate is not asked again by the process when the GCS begins anew."""
        if self._worker._answers.pop(request_id, None) is not None:
            self.look_again()

    def _nodes_known(self, answer: Any) -> None:
        if type(answer) is messages.NodeRegistered:
            self.begin(answer.nodes)
        else:
            self._worker.loop.call_later(limits.log_retry_s, self.look_again)

    def node_gone(self, process_id: ProcessId) -> None:
        if self._node is not None and self._node.process_id == process_id:
            self._node = self.gate.passes = None
            self.look_again()

    # -- at work -------------------------------------------------------------------------------------------------------
    def send(self, records: list[Record], begins: bool = False) -> None:
        """A batch of the log, which is in our own file already."""
        if self._alone:
            return
        self.gate.sent += 1
        if self._node is None:
            return  # it goes with all the rest, to the next node
        worker = self._worker
        assert worker.spec is not None
        data = encode(records, COPY)
        self._bytes = len(data) if begins else self._bytes + len(data)
        actor_id, number = worker.spec.actor_id, self.gate.sent
        self.gate.passes.send(messages.LogAppend(actor_id, worker.incarnation, number, begins, InPlace(data)))

    def cut(self) -> None:
        """A checkpoint covers much of it: begin the copy anew."""
        if self._node is not None and self._bytes > limits.call_log_segment_bytes_max:
            self.send([self._worker.log_file.head, *(r for r in self._worker.log_file.whole() if r[0] != HEAD)], True)

    def on_appended(self, link: Link, message: messages.LogAppended) -> None:
        if self._node is not None and link.peer.process_id == self._node.process_id:
            self._release(message.number)

    def on_not_kept(self, link: Link, message: messages.LogNotKept) -> None:
        self._worker.say(f"the node that holds its log can't keep it ({message.reason}); another one is looked for")
        if self._node is not None and self._node.process_id == link.peer.process_id:
            self._node = self.gate.passes = None
            self._worker.loop.call_later(limits.log_retry_s, self.look_again)

    def _release(self, number: int) -> None:
        self._worker.loop.release(self.gate.acknowledge(number))


def read_copy(data: Any) -> list[Record]:
    """The records of a copy, as far as they are whole."""
    return decode(bytes(data), COPY)[0]
