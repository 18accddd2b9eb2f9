"""Awaitable twins of methods that wait.

Each waiting method ``wait`` of a port has a twin ``wait_async``, made by `awaitable`: it runs in a thread of its own,
so that a thousand may be awaited at a time and none waits for another. A task that is cancelled lets go of it at once;
what the thread asked for may still happen.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

__all__ = ["awaitable", "in_thread"]

P = ParamSpec("P")
T = TypeVar("T")


def awaitable(waiting: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The awaitable twin of a function or method."""

    @functools.wraps(waiting)
    async def twin(*args: P.args, **kwargs: P.kwargs) -> T:
        return await in_thread(functools.partial(waiting, *args, **kwargs))

    twin.__name__ = f"{waiting.__name__}_async"
    twin.__doc__ = f"The awaitable twin of `{waiting.__name__}`."
    return twin


async def in_thread(waiting: Callable[[], T]) -> T:
    """Run something in a thread of its own, and await it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if future.done():  # cancelled
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type] # None is a T here when T is
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = waiting()
        except BaseException as caught:  # noqa: BLE001 - it is the caller's
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name="awaited", daemon=True).start()
    return await future
