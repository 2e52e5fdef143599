"""What workers print: read from their pipes, kept as a tail for the day they die, written to rotating files, and passed
on to the driver with repeated lines folded.

A worker is never held up by its prints, and nobody's memory by how much it prints: what comes faster than the driver is
to be bothered with is left out there, with a line that says how much and where all of it lies.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from actorlib.scheduler.print_backlog import PrintBacklog
from actorlib.transport import limits
from actorlib.transport.drivers.notice import notice
from actorlib.transport.link import Host, Link
from actorlib.transport.messages import LogLines

READ_BYTES = 1 << 16
DRAIN_READS_MAX = 64


def fold(lines: list[str]) -> list[str]:
    """Lines with runs of equal ones folded into one."""
    out: list[str] = []
    count = 0
    for index, line in enumerate(lines):
        count += 1
        if index + 1 == len(lines) or lines[index + 1] != line:
            out.append(line if count == 1 else f"{line} [repeated {count}x]")
            count = 0
    return out


class Allowance:
    """How many bytes of prints may be passed on: so many a second, and as many at once after a quiet while."""

    def __init__(self, now: float) -> None:
        self._left = float(limits.print_forward_bytes_per_s)
        self._at = now

    def take(self, now: float, size: int) -> bool:
        """Whether ``size`` bytes may pass. A piece passes whole while anything is left."""
        rate = limits.print_forward_bytes_per_s
        self._left = min(float(rate), self._left + (now - self._at) * rate)
        self._at = now
        if self._left <= 0:
            return False
        self._left -= size
        return True


class Forwarder:
    """Sends prints to drivers as fast as they take them, and holds back what they don't."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._waiting: dict[Link, PrintBacklog] = {}

    def send(self, link: Link, message: LogLines) -> None:
        if link not in self._waiting:
            if self._host.bytes_on_the_way(link) < limits.print_on_the_way_bytes_max:
                link.send(message)
                return
            if not self._waiting:
                self._host.call_later(limits.print_look_again_s, self._look_again)
            self._waiting[link] = PrintBacklog()
        self._waiting[link].add(message)

    def _look_again(self) -> None:
        for link, backlog in list(self._waiting.items()):
            for message in backlog.take(limits.print_on_the_way_bytes_max - self._host.bytes_on_the_way(link)):
                link.send(message)
            if link.is_down or backlog.is_empty():
                del self._waiting[link]
        if self._waiting:
            self._host.call_later(limits.print_look_again_s, self._look_again)


class Stream:
    """One pipe of one worker."""

    def __init__(
        self, fd: int, path: str, forward: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.tail = b""
        self._path = path
        self._forward = forward
        self._clock = clock
        self._allowance = Allowance(clock())
        self._left_out = 0
        self._rest = b""  # of a line that has not ended
        self._file_bytes = 0
        self._is_writable = True

    def read(self) -> bool:
        """Take what is there (a bounded piece); False at the end of the pipe."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return True
        if data:
            self._take(data)
        return bool(data)

    def drain(self) -> None:
        """Everything that is there now (its writer has died)."""
        for _ in range(DRAIN_READS_MAX):
            try:
                data = os.read(self.fd, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        self.tail = (self.tail + data)[-limits.stderr_tail_bytes_max :]
        self._write(data)
        self._pass_on(data)

    def _write(self, data: bytes) -> None:
        if not self._is_writable:
            return
        try:
            if self._file_bytes > limits.print_file_bytes_max:
                os.replace(self._path, self._path + ".1")
                self._file_bytes = 0
            with open(self._path, "ab") as target:
                target.write(data)
        except OSError as error:  # prints still reach the driver; a full disk must not stop the node
            self._is_writable = False
            notice(f"prints are no longer kept in {self._path}: {error}")
        self._file_bytes += len(data)

    def _pass_on(self, data: bytes) -> None:
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            whole, self._rest = self._rest + whole, rest
        else:
            whole, self._rest = b"", self._rest + rest
            if len(self._rest) >= limits.print_line_bytes_max:
                whole, self._rest = self._rest, b""
        if whole or newline:
            self._offer(whole)

    def _offer(self, text: bytes) -> None:
        if not self._allowance.take(self._clock(), len(text)):
            if not self._left_out:
                where = f"; all of them are in {self._path}" if self._is_writable else ""
                self._forward(f"[actorlib: prints come too fast to be shown{where}]")
            self._left_out += len(text)
            return
        self._tell_left_out()
        self._forward("\n".join(fold(text.decode(errors="replace").split("\n"))))

    def _tell_left_out(self) -> None:
        if self._left_out:
            self._forward(f"[actorlib: {self._left_out} bytes of prints were not shown]")
            self._left_out = 0

    def close(self) -> None:
        """Pass on the line that was not ended, and what there is to say about what was left out."""
        rest, self._rest = self._rest, b""
        self._tell_left_out()
        if rest:
            self._offer(rest)
        os.close(self.fd)
