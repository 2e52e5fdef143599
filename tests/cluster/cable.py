"""A bad cable: frames from one network interface to another and back, each late by so much, some lost.

Run in the namespace of both interfaces. It says "ready" when it carries, and ends when its input does:

    python cable.py carry LEFT RIGHT DELAY_S LOSS SEED
    python cable.py plain INTERFACE

Many kernels lack netem, so this is a process. What an interface would leave to hardware (checksums, cutting large
packets into frames) has to be done before a frame comes here: ``plain`` says so to an interface.
"""

from __future__ import annotations

import array
import fcntl
import random
import select
import socket
import struct
import sys
import time
from collections import deque

EVERYTHING = 0x0003  # ETH_P_ALL, from linux/if_ether.h
OUTGOING = 4  # PACKET_OUTGOING, from linux/if_packet.h
SIOCETHTOOL = 0x8946
FRAME_BYTES_MAX = 65_536
SWITCHED_OFF = (0x17, 0x1F, 0x24, 0x2C)  # ETHTOOL_STXCSUM, STSO, SGSO, SGRO, from linux/ethtool.h


def make_plain(interface: str) -> None:
    """Have the kernel do for this interface what hardware might."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in SWITCHED_OFF:
            value = array.array("B", struct.pack("II", command, 0))
            request = struct.pack("16sP", interface.encode(), value.buffer_info()[0])
            fcntl.ioctl(control, SIOCETHTOOL, request)


def end_of(interface: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
    opened.bind((interface, EVERYTHING))
    opened.setblocking(False)
    return opened


def carry(left: str, right: str, delay_s: float, loss: float, seed: int) -> None:
    rng = random.Random(seed)
    ends = {end.fileno(): end for end in (end_of(left), end_of(right))}
    one, other = ends
    across = {one: ends[other], other: ends[one]}
    under_way: deque[tuple[float, socket.socket, bytes]] = deque()  # in the order in which they are due
    poll = select.poll()
    for fd in (*ends, sys.stdin.fileno()):
        poll.register(fd, select.POLLIN)
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, target, frame = under_way.popleft()
            target.send(frame)
        for fd, _ in poll.poll(max(0.0, under_way[0][0] - now) * 1000 if under_way else None):
            if fd not in ends:
                return
            frame, sender = ends[fd].recvfrom(FRAME_BYTES_MAX)
            if sender[2] != OUTGOING and rng.random() >= loss:
                under_way.append((time.monotonic() + delay_s, across[fd], frame))


if __name__ == "__main__":
    if sys.argv[1] == "plain":
        make_plain(sys.argv[2])
    else:
        carry(sys.argv[2], sys.argv[3], float(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6]))
