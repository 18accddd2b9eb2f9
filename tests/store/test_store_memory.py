"""What an appliance holds in memory is bounded, however slowly its peers take it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

from aiohttp import web
from aiohttp.test_utils import TestServer

from serai.data.appliance.transfers import Transfers
from serai.data.bodies.load import Load
from serai.data.bodies.many import Bundled

if TYPE_CHECKING:
    from serai.data.appliance.files import Files

ASK = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
SIZE = 32_000_000  # more than the buffers of a connection


def test_an_answer_of_many_files_waits_until_there_is_memory_for_it() -> None:
    made: list[Bundled] = []

    def make() -> Bundled:
        made.append(Bundled([bytes(1 << 20)] * (SIZE >> 20)))
        return made[-1]

    async def main() -> None:
        with ThreadPoolExecutor(4) as disk:
            transfers = Transfers(cast("Files", None), disk, Load(lambda: 0.0, 16), at_once=1)

            async def answer(request: web.BaseRequest) -> web.StreamResponse:
                return await transfers.give(request, make)

            app = web.Application()
            app.router.add_get("/", answer)
            async with TestServer(app) as server, asyncio.timeout(60):
                _, slow = await asyncio.open_connection(server.host, server.port, limit=1 << 16)
                slow.write(ASK)
                while not made:  # noqa: ASYNC110 - of another's doing
                    await asyncio.sleep(0.01)
                coming, second = await asyncio.open_connection(server.host, server.port)
                second.write(ASK)
                await asyncio.sleep(0.3)
                assert len(made) == 1, "the first has not taken its answer yet"
                slow.transport.abort()
                assert (await coming.readline()).startswith(b"HTTP/1.1 200")
                assert len(made) == 2
                second.transport.abort()

    asyncio.run(main())
