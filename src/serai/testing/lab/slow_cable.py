"""A slow cable: carry Ethernet frames between two interfaces, late and at a limited rate.

Run as ``python -IS slow_cable.py ONE OTHER RATE_BIT_S DELAY_S`` (a rate of 0 is no limit) inside the laboratory's
network; it says ``up`` and works until its standard input ends. In user space, because many kernels come without netem;
frames travel with the kernel's own offload header, so that large segments and unfinished checksums cross as they are.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections import deque

ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
FRAME_BYTES = (1 << 16) + 64
HEADER_BYTES = 10 + 14  # the offload header and Ethernet's: neither counts against the rate
BUFFER_S = 0.2  # what a router on the way would hold; what comes on top is lost
BUFFER_BYTES = 1 << 18
MOST_BYTES = 1 << 26  # on the way at a time, each way
BATCH = 64


class Direction:
    """One direction of the cable: what is on its way, and when it arrives."""

    def __init__(self, source: socket.socket, target: socket.socket, rate_bit_s: float, delay_s: float) -> None:
        self.source = source
        self.target = target
        self.rate_bit_s = rate_bit_s
        self.delay_s = delay_s
        self.free_at = 0.0  # when the line has sent what it was given
        self.bytes_on_the_way = 0
        self.on_the_way: deque[tuple[float, bytes]] = deque()

    def take(self, now: float) -> None:
        """Take the frames that wait at the source, and lose those for which there is no room."""
        for _ in range(BATCH):
            try:
                frame = self.source.recv(FRAME_BYTES)
            except BlockingIOError:
                return
            except OSError:  # the interface is down: the socket works again when it is up
                return
            self.free_at = max(self.free_at, now)
            if self.rate_bit_s:
                room_s = max(BUFFER_S, BUFFER_BYTES * 8 / self.rate_bit_s)
                if self.free_at - now > room_s:
                    continue
                self.free_at += (len(frame) - HEADER_BYTES) * 8 / self.rate_bit_s
            if self.bytes_on_the_way + len(frame) > MOST_BYTES:
                continue
            self.bytes_on_the_way += len(frame)
            self.on_the_way.append((self.free_at + self.delay_s, frame))

    def deliver(self, now: float) -> None:
        """Send the frames whose time has come; one that the interface refuses is lost."""
        while self.on_the_way and self.on_the_way[0][0] <= now:
            _, frame = self.on_the_way.popleft()
            self.bytes_on_the_way -= len(frame)
            try:
                self.target.send(frame)
            except OSError:
                continue


def _open(interface: str) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    end.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    end.settimeout(0)
    end.bind((interface, ETH_P_ALL))
    return end


def main() -> None:
    """Carry frames until standard input ends."""
    one, other = _open(sys.argv[1]), _open(sys.argv[2])
    rate_bit_s, delay_s = float(sys.argv[3]), float(sys.argv[4])
    ways = (Direction(one, other, rate_bit_s, delay_s), Direction(other, one, rate_bit_s, delay_s))
    sys.stdout.write("up\n")
    sys.stdout.flush()
    while True:
        due = [way.on_the_way[0][0] for way in ways if way.on_the_way]
        wait_s = max(0.0, min(due) - time.monotonic()) if due else None
        ready = select.select([sys.stdin, one, other], [], [], wait_s)[0]
        if sys.stdin in ready and not os.read(sys.stdin.fileno(), 1):
            return
        now = time.monotonic()
        for way in ways:
            if way.source in ready:
                way.take(now)
            way.deliver(time.monotonic())


if __name__ == "__main__":
    main()
