"""What workers print: whole lines, folded, bounded in every direction."""

from __future__ import annotations

import os

import pytest

from actorlib.scheduler.drivers.output import Allowance, Stream, fold
from actorlib.transport import limits


class Pipe:
    """A stream over a real pipe, with a clock that stands still until it is moved."""

    def __init__(self, path):
        self.now = 0.0
        self.seen: list[str] = []
        self.read_fd, self.write_fd = os.pipe()
        self.stream = Stream(self.read_fd, str(path), self.seen.append, lambda: self.now)

    def print(self, data: bytes) -> None:
        for start in range(0, len(data), 1 << 15):
            os.write(self.write_fd, data[start : start + (1 << 15)])
            self.stream.read()

    def end(self) -> None:
        os.close(self.write_fd)
        assert self.stream.read() is False
        self.stream.close()


@pytest.fixture
def pipe(tmp_path):
    return Pipe(tmp_path / "out")


def test_runs_of_equal_lines_are_folded():
    assert fold(["a", "a", "b", "a"]) == ["a [repeated 2x]", "b", "a"]
    assert fold([]) == []


def test_whole_lines_are_passed_on_and_the_last_one_at_the_end(pipe):
    pipe.print(b"one\ntw")
    assert pipe.seen == ["one"]
    pipe.print(b"o\n\nthree")
    assert pipe.seen == ["one", "two\n"]
    pipe.end()
    assert pipe.seen == ["one", "two\n", "three"]


def test_a_line_without_end_is_passed_on_in_pieces_and_not_collected(pipe):
    pipe.print(b"x" * (limits.print_line_bytes_max + 100))
    assert [len(text) for text in pipe.seen] == [limits.print_line_bytes_max]
    pipe.end()
    assert sum(map(len, pipe.seen)) == limits.print_line_bytes_max + 100


def test_what_comes_too_fast_is_left_out_and_that_is_told(pipe, tmp_path):
    line = b"y" * 1023 + b"\n"
    pipe.print(line * 3000)
    shown = "\n".join(pipe.seen)
    assert "come too fast" in shown and str(tmp_path / "out") in shown
    assert len(shown) < limits.print_forward_bytes_per_s + 100_000
    pipe.now += 1.0
    pipe.print(b"calm again\n")
    assert pipe.seen[-1] == "calm again"
    left_out = int(pipe.seen[-2].split()[1])
    assert 1_500_000 < left_out < 3000 * 1024
    assert os.path.getsize(tmp_path / "out") == 3000 * 1024 + len("calm again\n")
    pipe.end()


def test_files_are_put_aside_when_they_are_large(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "print_file_bytes_max", 100_000)
    pipe.print(b"z" * 1_000_000)
    pipe.end()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.1"]
    assert all(path.stat().st_size <= 200_000 for path in tmp_path.iterdir())


def test_a_file_that_cant_be_written_is_told_once_and_prints_go_on(tmp_path, capfd):
    pipe = Pipe(tmp_path / "no such folder" / "out")
    pipe.print(b"first\nsecond\n")
    pipe.print(b"third\n")
    pipe.end()
    assert "\n".join(pipe.seen).split("\n") == ["first", "second", "third"]
    assert capfd.readouterr().err.count("no longer kept") == 1


def test_the_tail_is_what_came_last(pipe):
    pipe.print(b"a" * 10_000 + b"the end\n")
    assert pipe.stream.tail.endswith(b"the end\n") and len(pipe.stream.tail) == limits.stderr_tail_bytes_max
    pipe.end()


def test_an_allowance_fills_up_with_time_and_no_further():
    allowance = Allowance(0.0)
    assert allowance.take(0.0, limits.print_forward_bytes_per_s)
    assert not allowance.take(0.0, 1)
    assert allowance.take(0.5, 10)
    assert allowance.take(100.0, limits.print_forward_bytes_per_s)
    assert not allowance.take(100.0, 1)
