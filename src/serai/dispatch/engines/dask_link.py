"""The front end's side of one agent in a Dask worker: frames of threads here, messages of an event loop there."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import queue
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Self

from serai.dispatch.engines.dask_far import PIECE, STEP, WINDOW
from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

CLOSE_S = 6.0
START_S = 10.0

_pack: Any = wire.pack  # what travels has no types


class LoopThread:
    """An event loop on a thread of its own; its tasks are cancelled when it is closed."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="dask-loop", daemon=True)
        self.loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    def start(self) -> Self:
        """Begin."""
        self._thread.start()
        if not self._started.wait(START_S):
            raise OSError(errno.ETIMEDOUT, "the event loop did not start")
        return self

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._started.set()
        await self._stop.wait()

    def run(self, work: Coroutine[Any, Any, Any], deadline_s: float) -> Any:
        """Run a coroutine and return what it does.

        Raises:
            OSError: it took longer, or the engine is closed.
        """

        async def limited() -> Any:
            async with asyncio.timeout(deadline_s):
                return await work

        task = limited()
        try:
            future = asyncio.run_coroutine_threadsafe(task, self.loop)
        except RuntimeError as error:
            task.close()
            work.close()
            raise OSError(errno.ESHUTDOWN, "the engine is closed") from error
        try:
            return future.result(deadline_s + START_S)
        except CancelledError as error:
            raise OSError(errno.ESHUTDOWN, "the engine was closed") from error

    def close(self) -> None:
        """End it and everything on it."""
        with contextlib.suppress(RuntimeError):  # it is closed
            self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(CLOSE_S)


class Cutter:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def cut(self, data: bytes) -> list[bytes]:
        """Add bytes; returns the frames that are whole now.

        Raises:
            ValueError: this is no stream of frames.
        """
        buffer = self._buffer
        buffer += data
        frames, start = [], 0
        while len(buffer) - start >= wire.HEADER.size:
            _, _, _, head_bytes, body_bytes = wire.HEADER.unpack_from(buffer, start)
            if head_bytes + body_bytes > wire.LIMIT:
                raise ValueError(f"a frame of {head_bytes + body_bytes} bytes")
            stop = start + wire.HEADER.size + head_bytes + body_bytes
            if stop > len(buffer):
                break
            frames.append(bytes(memoryview(buffer)[start:stop]))
            start = stop
        if start:
            del buffer[:start]
        return frames


class DaskLink:
    """A link to an agent inside a worker.

    The event loop sends and receives; a thread of the link's own delivers, so that a front end which is slow to take
    what one worker says holds up no other.

    Args:
        comm: the connection, from now on the link's own.
        loop: its event loop.
        deliver: takes frames, and None at the end.
        name: of the node.
    """

    def __init__(
        self, comm: Any, loop: asyncio.AbstractEventLoop, deliver: Callable[[bytes | None], None], name: str
    ) -> None:
        self._comm = comm
        self._loop = loop
        self._deliver = deliver
        self._state = threading.Condition()  # guards the next four
        self._waiting: list[bytes] = []
        self._ahead = 0  # bytes given to the link that the worker has not taken
        self._over = False
        self._flushing = False
        self._closing = False
        self._end: dict[str, Any] = {}  # how the agent ended
        self._arrived: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()  # the worker's window is its limit
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._hand_over, name=f"dask-{name}", daemon=True)

    def start(self) -> Self:
        """Begin to receive."""
        self._thread.start()
        self._loop.call_soon_threadsafe(self._spawn, self._listen)
        return self

    def send(self, frame: bytes) -> None:
        """See `Link.send`."""
        with self._state:
            # Without a deadline: a worker that takes nothing is silent too, and the silent are closed, which ends this.
            self._state.wait_for(lambda: self._ahead < WINDOW or self._over)
            if self._over:
                raise OSError(errno.EPIPE, "the executor in the Dask worker is gone")
            self._ahead += len(frame)
            self._waiting.append(frame)
            idle, self._flushing = not self._flushing, True
        if idle:
            self._soon(self._spawn, self._flush)

    def close(self) -> None:
        """See `Link.close`."""
        with self._state:
            first, self._closing = not self._closing, True
            self._over = True
            self._waiting.clear()
            self._state.notify_all()
        if first:
            self._soon(self._spawn, self._say_end)
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_S)
        self._soon(self._comm.abort)

    def _soon(self, what: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the engine is closed, and the connection with it
            self._loop.call_soon_threadsafe(what, *args)

    # ---- on the event loop

    def _spawn(self, what: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self._loop.create_task(what())
        self._tasks.add(task)  # the loop itself does not hold it
        task.add_done_callback(self._tasks.discard)

    async def _listen(self) -> None:
        try:
            while True:
                message = await self._comm.read()
                if isinstance(message, bytes):
                    self._arrived.put(message)
                elif isinstance(message, int):
                    with self._state:
                        self._ahead -= message
                        self._state.notify_all()
                else:
                    self._end = message
                    return
        except OSError:  # the worker is gone, or `close` wants it so
            return
        finally:
            with self._state:
                self._over = True
                self._state.notify_all()
            self._arrived.put(None)
            self._comm.abort()

    async def _flush(self) -> None:
        try:
            while True:
                with self._state:
                    frames, self._waiting = self._waiting, []
                    if not frames:
                        self._flushing = False
                        return
                data = frames[0] if len(frames) == 1 else b"".join(frames)
                for at in range(0, len(data), PIECE):
                    await self._comm.write(data[at : at + PIECE])
        except OSError:
            self._comm.abort()  # `_listen` sees it

    async def _say_end(self) -> None:
        with contextlib.suppress(OSError):
            await self._comm.write(None)

    async def _receipt(self, taken: int) -> None:
        with contextlib.suppress(OSError):
            await self._comm.write(taken)

    # ---- on the link's own thread

    def _hand_over(self) -> None:
        cutter, taken = Cutter(), 0
        while (data := self._arrived.get()) is not None:
            try:
                frames = cutter.cut(data)
            except ValueError as error:
                self._end = {"code": None, "said": f"it sent {error}"}
                self._soon(self._comm.abort)
                break
            for frame in frames:
                self._deliver(frame)
            taken += len(data)
            if taken >= STEP:
                self._soon(self._spawn, lambda taken=taken: self._receipt(taken))
                taken = 0
        if self._end.get("code") and not self._closing:
            words = f"its executor ended with exit code {self._end['code']}: {self._end.get('said', '').strip()}"
            self._deliver(_pack(wire.TROUBLE, head={"fatal": words}))
        self._deliver(None)
