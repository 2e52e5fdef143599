"""What workers print: read from their pipes, kept as a tail for the day they die, written to rotating files, and passed
on to the driver with repeated lines folded."""

from __future__ import annotations

import os
from collections.abc import Callable

from actorlib.transport import limits

READ_BYTES = 1 << 16
FILE_BYTES_MAX = 16 << 20
FORWARD_BYTES_PER_TURN_MAX = 1 << 18


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


class Stream:
    """One pipe of one worker."""

    def __init__(self, fd: int, path: str, forward: Callable[[str], None]) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.tail = b""
        self._path = path
        self._forward = forward
        self._rest = b""
        self._file_bytes = 0

    def read(self) -> bool:
        """Take what is there (a bounded piece); False at the end of the pipe."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            self._pass_on(b"", last=True)
            return False
        self.tail = (self.tail + data)[-limits.stderr_tail_bytes_max :]
        self._write(data)
        self._pass_on(data, last=False)
        return True

    def drain(self) -> None:
        """Everything that is there now (its writer has died)."""
        for _ in range(64):
            try:
                data = os.read(self.fd, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            self.tail = (self.tail + data)[-limits.stderr_tail_bytes_max :]
            self._write(data)
            self._pass_on(data, last=False)

    def _write(self, data: bytes) -> None:
        if self._file_bytes > FILE_BYTES_MAX:
            os.replace(self._path, self._path + ".1")
            self._file_bytes = 0
        with open(self._path, "ab") as target:
            target.write(data)
        self._file_bytes += len(data)

    def _pass_on(self, data: bytes, last: bool) -> None:
        whole, newline, rest = (self._rest + data).rpartition(b"\n")
        self._rest = rest
        text = whole if newline else b""
        if last and rest:
            text, self._rest = (text + b"\n" + rest if text else rest), b""
        if text:
            lines = text[-FORWARD_BYTES_PER_TURN_MAX:].decode(errors="replace").split("\n")
            self._forward("\n".join(fold(lines)))

    def close(self) -> None:
        os.close(self.fd)
