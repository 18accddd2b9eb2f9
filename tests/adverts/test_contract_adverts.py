"""The contract of advert services, against each of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from serai.adverts.far import FarAdverts
from serai.adverts.gateway import Gateway
from serai.adverts.handlers import advert_handlers
from serai.adverts.service import open_adverts
from serai.adverts.sqlite import SqliteAdverts
from serai.clock import SystemClock
from serai.testing.adverts import AdvertsContract, Open
from serai.travel.gateway import Gateway as Client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serai.testing.postgres import PostgresServer


class TestSqlite(AdvertsContract):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Open:
        return lambda: open_adverts(f"sqlite://{tmp_path}/a dverts?.sqlite".replace(" ", "%20").replace("?", "%3F"))


class TestPostgres(AdvertsContract):
    @pytest.fixture
    def opened(self, postgres: PostgresServer) -> Open:
        postgres.sql("DROP TABLE IF EXISTS serai_adverts, serai_adverts_turn")
        return lambda: open_adverts(postgres.url)


class TestThroughTheGateway(AdvertsContract):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Iterator[Open]:
        with (
            SqliteAdverts(tmp_path / "adverts.sqlite", SystemClock()) as adverts,
            Gateway(advert_handlers(adverts), tmp_path) as gateway,
        ):
            yield lambda: FarAdverts(Client(gateway.address, gateway.token))
