"""Between nodes: the latency of a call and the speed of a pull, against what bare ZeroMQ does on the same machine.

Nodes as ``actorlib start`` makes them, on TCP with CURVE at loopback, and for the pull without CURVE nodes on local
sockets that share no memory. The raw sides move as much between two processes, out of an array as large as the object
(not one chunk again and again, which stays in the cache) in messages as large as our chunks, and throw it away; ours
ends up in shared memory. Both sides take turns, since machines have moods; the median
of the ratios of neighbours is reported.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from harness import RESULTS, latency_us

import actorlib
from actorlib.cluster_utils import Cluster
from actorlib.runtime.drivers.node_process import NodeConfig, launch_node
from actorlib.transport import limits
from actorlib.transport.drivers.keys import KeyStore

MIB = 1 << 20


# -- the raw side ------------------------------------------------------------------------------------------------------
def _secure(socket: Any, keys: Any, is_server: bool) -> None:
    if keys is None:
        return
    socket.curve_publickey, socket.curve_secretkey = keys[0] if is_server else keys[1]
    if is_server:
        socket.curve_server = True
    else:
        socket.curve_serverkey = keys[0][0]


def _other_side(port: int, keys: Any, chunk: int) -> None:
    """Echoes what is short; on "stream N" sends N bytes."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        _secure(socket, keys, False)
        socket.sndhwm = 16
        socket.connect(f"tcp://127.0.0.1:{port}")
        socket.send(b"ready")
        payload = memoryview(b"")
        while (message := socket.recv()) != b"end":
            if message.startswith(b"stream "):
                size = int(message.split()[1])
                if len(payload) != size:
                    payload = memoryview(np.ones(size, np.uint8))
                for at in range(0, size, chunk):
                    socket.send(payload[at : at + chunk], copy=False)
            else:
                socket.send(message)


class Raw:
    """A ROUTER here, a DEALER in another process, one TCP connection between them."""

    def __init__(self, with_curve: bool) -> None:
        keys = (zmq.curve_keypair(), zmq.curve_keypair()) if with_curve else None
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        _secure(self._socket, keys, True)
        self._socket.rcvhwm = 16
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        arguments = (port, keys, limits.pull_chunk_bytes)
        self._child = multiprocessing.get_context("spawn").Process(target=_other_side, args=arguments)
        self._child.start()
        self._peer, _ = self._socket.recv_multipart()

    def round_trip(self) -> None:
        self._socket.send_multipart([self._peer, b"x" * 100])
        self._socket.recv_multipart()

    def stream_s(self, size: int) -> float:
        began = time.perf_counter()
        self._socket.send_multipart([self._peer, b"stream %d" % size])
        for _ in range(size // limits.pull_chunk_bytes):
            self._socket.recv_multipart(copy=False)
        return time.perf_counter() - began

    def close(self) -> None:
        self._socket.send_multipart([self._peer, b"end"])
        self._child.join()
        self._context.destroy(linger=0)


# -- our side ----------------------------------------------------------------------------------------------------------
@contextmanager
def on_tcp(store_bytes: int) -> Iterator[None]:
    """Two nodes with keys of their own; this process drives from the head's."""
    with tempfile.TemporaryDirectory() as directory:
        keys = KeyStore(Path(directory, "keys"))
        paths = list(dict.fromkeys(path or os.getcwd() for path in sys.path))
        shared: dict[str, Any] = {"ip": "127.0.0.1", "sys_path": paths, "cwd": os.getcwd(), "num_cpus": 1}
        shared["object_store_memory"] = store_bytes
        head = launch_node(NodeConfig(directory=directory, **shared))
        key = str(keys.new("other", "node").path)
        other = launch_node(
            NodeConfig(join=head.head, key_file=key, host_id="other", resources={"other": 10}, **shared)
        )
        try:
            actorlib.init(address=head.head, log_to_driver=False)
            yield
        finally:
            actorlib.shutdown()
            other.stop()
            head.stop()


@contextmanager
def on_local_sockets(store_bytes: int) -> Iterator[None]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": store_bytes})
    try:
        cluster.add_node(num_cpus=1, resources={"other": 10}, separate_host=True, object_store_memory=store_bytes)
        cluster.connect()
        yield
    finally:
        cluster.shutdown()


@actorlib.remote(num_cpus=0, resources={"other": 1})
class Echo:
    def echo(self, value: Any) -> Any:
        return value


@actorlib.remote(num_cpus=0, resources={"other": 1})
def make(size: int) -> Any:
    return np.ones(size, np.uint8)


def pull_s(size: int) -> float:
    ref: Any = make.remote(size)
    actorlib.wait([ref], fetch_local=False)
    began = time.perf_counter()
    actorlib.get(ref)
    return time.perf_counter() - began


def rates(size: int, raw: Raw, turns: int) -> tuple[float, float, float]:
    """GB/s of the raw stream and of pulls, in turns; medians, and the median of the ratios of neighbours."""
    raw.stream_s(size), pull_s(size)  # warms the memory up
    took = [(raw.stream_s(size), pull_s(size)) for _ in range(turns)]
    raw_s, pulled_s = (statistics.median(side) for side in zip(*took, strict=True))
    return size / 1e9 / raw_s, size / 1e9 / pulled_s, statistics.median(one / other for one, other in took)


def latencies(raw: Raw, calls: int) -> dict[str, float]:
    """Round trips and calls in turns of a tenth of them; medians, and the median of the ratios of neighbours."""
    echo: Any = Echo.remote()
    value = b"x" * 100
    count = max(20, calls // 10)
    trips, own = [], []
    for _ in range(10):
        trips.append(latency_us(raw.round_trip, count, count // 10))
        own.append(latency_us(lambda: actorlib.get(echo.echo.remote(value)), count, count // 10))
    pairs = [(one["value"], other["value"]) for one, other in zip(trips, own, strict=True)]
    return {
        "raw_curve_round_trip_us": statistics.median(one for one, _ in pairs),
        "call_us": statistics.median(other for _, other in pairs),
        "call_p99_us": statistics.median(one["p99_us"] for one in own),
        "call_over_raw_curve": statistics.median(other / one for one, other in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=256, help="size of the object that is pulled")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.mib, arguments.turns, arguments.calls = 64, 2, 300
    size, turns = arguments.mib * MIB, arguments.turns
    figures: dict[str, Any] = {"mib": arguments.mib}
    raw = Raw(with_curve=True)
    with on_tcp(4 * size + (64 << 20)):
        figures.update(latencies(raw, arguments.calls))
        names = ("raw_curve_gb_s", "pull_curve_gb_s", "pull_curve_over_raw_curve")
        figures.update(zip(names, rates(size, raw, turns), strict=True))
    raw.close()
    raw = Raw(with_curve=False)
    with on_local_sockets(4 * size + (64 << 20)):
        names = ("raw_gb_s", "pull_gb_s", "pull_over_raw")
        figures.update(zip(names, rates(size, raw, turns), strict=True))
    raw.close()
    for key, value in figures.items():
        print(f"{key:28} {value:10.3f}" if isinstance(value, float) else f"{key:28} {value:10}")
    print("to reach: call_over_raw_curve at most 1.3, pull_over_raw at least 0.7, pull_curve_over_raw_curve 0.9")
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "cluster.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
