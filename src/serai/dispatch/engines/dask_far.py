"""The far side of the Dask engine: what runs inside a cluster's own workers and, where it must, its scheduler.

This module travels as text and is executed there, so that Serai need not be installed and any version of Python will
do. It adds one operation to the server it finds itself in. A worker's operation starts an agent and joins it to the
connection that the operation came by; a scheduler's joins that connection to a worker that the front end does not
reach.

On such a connection travel: bytes (of the agent's standard input or output), a number (so many bytes have been taken; a
Dask connection buffers without limit, so each side sends no more than WINDOW bytes ahead of that), None (the front end
wants the agent to end), and at last a dictionary (how the agent ended).
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from distributed.comm import connect
from distributed.core import Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

EXECUTOR = "serai-executor-1"  # the operation of workers
RELAY = "serai-relay-1"  # the operation of schedulers
WINDOW = 8 << 20  # bytes
PIECE = 1 << 20  # bytes in one message at most
STEP = 1 << 20  # bytes taken before the other side is told
END_S = 10.0  # an agent that does not end by itself within this is killed
FLUSH_S = 5.0
RELAY_S = 10.0
KEEP = 4000  # bytes of what the agent says on its standard error
# The agent's text comes by its standard input, since one argument of a command holds 128 kB at most.
FIRST = (
    "import os\n"
    "def read(size):\n"
    " text = b''\n"
    " while len(text) < size:\n"
    "  more = os.read(0, size - len(text))\n"
    "  if not more: os._exit(1)\n"
    "  text += more\n"
    " return text\n"
    "exec(compile(read(int(read(12))), '<serai>', 'exec'))\n"
)


class Bridge:
    """Joins a connection to an agent's pipes until either has ended."""

    def __init__(self, comm: Any, process: Any) -> None:
        self._comm = comm
        self._process = process
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()  # the front end's window is its limit
        self._room = asyncio.Event()
        self._room.set()
        self._ahead = 0  # bytes sent that the front end has not taken
        self._gone = False  # the front end
        self._said = b""

    async def run(self) -> dict[str, Any]:
        """Serve, then end the agent; returns how it ended."""
        process = self._process
        listen = asyncio.ensure_future(self._listen())
        feed = asyncio.ensure_future(self._feed())
        carry = asyncio.ensure_future(self._carry())
        note = asyncio.ensure_future(self._note())
        try:
            await asyncio.wait({listen, carry}, return_when=asyncio.FIRST_COMPLETED)
        finally:  # also when the worker closes, which cancels this
            self._gone = True
            self._room.set()
            feed.cancel()
            process.stdin.close()
            await asyncio.wait({carry}, timeout=END_S)
            if not carry.done():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await asyncio.wait({carry, note}, timeout=1.0)
            for task in (listen, carry, note):
                task.cancel()
        return {"code": await process.wait(), "said": self._said.decode("utf-8", "replace")}

    async def _listen(self) -> None:
        """Never waits for the agent, so that the front end's receipts are always heard."""
        with contextlib.suppress(OSError):
            while True:
                message = await self._comm.read()
                if isinstance(message, int):
                    self._ahead -= message
                    if self._ahead < WINDOW:
                        self._room.set()
                elif message is None:
                    return
                else:
                    self._inbox.put_nowait(message)

    async def _feed(self) -> None:
        stdin, taken = self._process.stdin, 0
        with contextlib.suppress(OSError):  # the agent has ended, and the end of its output says so
            while True:
                data = await self._inbox.get()
                stdin.write(data)
                await stdin.drain()
                taken += len(data)
                if taken >= STEP:
                    await self._comm.write(taken)
                    taken = 0

    async def _carry(self) -> None:
        """Goes on reading when the front end is gone: an agent that cannot write would not end."""
        stdout = self._process.stdout
        while data := await stdout.read(PIECE):
            await self._room.wait()
            if self._gone:
                continue
            self._ahead += len(data)
            if self._ahead >= WINDOW:
                self._room.clear()
            try:
                await self._comm.write(data)
            except OSError:
                self._gone = True

    async def _note(self) -> None:
        stderr = self._process.stderr
        while data := await stderr.read(KEEP):
            self._said = (self._said + data)[-KEEP:]


async def _finish(comm: Any, message: object) -> Any:
    """Say a last word on a connection."""
    try:
        await comm.write(message)
        await asyncio.wait_for(comm.close(), FLUSH_S)
    except OSError:  # asyncio's TimeoutError is one
        comm.abort()
    return Status.dont_reply


async def executor(comm: Any, program: bytes = b"", python: str | None = None) -> Any:
    """The operation of a worker: start an agent and be its way to the front end."""
    try:
        process: Any = await asyncio.create_subprocess_exec(
            python or sys.executable, "-c", FIRST,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, limit=PIECE, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return await _finish(comm, {"refused": f"cannot start {python or sys.executable}: {error.strerror}"})
    bridge = Bridge(comm, process)
    process.stdin.write(b"%12d" % len(program) + program)
    with contextlib.suppress(OSError):
        await comm.write({"pid": process.pid})
    return await _finish(comm, await bridge.run())


def relay_of(scheduler: Any) -> Callable[..., Awaitable[Any]]:
    """The operation of a scheduler: be the way to one of its workers."""

    async def relay(comm: Any, address: str = "") -> Any:
        if address not in scheduler.workers:
            return await _finish(comm, {"refused": "the worker has left the cluster"})
        try:
            far = await connect(address, timeout=RELAY_S, deserialize=False, **scheduler.connection_args)
        except OSError as error:
            return await _finish(comm, {"refused": f"the scheduler does not reach it: {error}"})
        pumps = [asyncio.ensure_future(_pump(*ends)) for ends in ((comm, far), (far, comm))]
        try:
            with contextlib.suppress(OSError):
                await comm.write({"joined": address})
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for one in (far, comm):
                with contextlib.suppress(OSError):
                    await asyncio.wait_for(one.close(), FLUSH_S)
        return Status.dont_reply

    return relay


async def _pump(source: Any, target: Any) -> None:
    with contextlib.suppress(OSError):
        while True:
            await target.write(await source.read())


def install() -> None:
    """Give every worker and scheduler of this process their operation."""
    from distributed import Scheduler, Worker  # noqa: PLC0415 - at the front end the constants above are enough

    for worker in list(Worker._instances):  # noqa: SLF001 - how Dask itself finds them
        worker.handlers[EXECUTOR] = executor
    for scheduler in list(Scheduler._instances):  # noqa: SLF001 - the same
        scheduler.handlers[RELAY] = relay_of(scheduler)
