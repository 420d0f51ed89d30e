"""What the calls that read need beside balances, started and ended together, and their routes.

The rules of this file: it wires and decides nothing; streams of alerts end as soon as the process is told to stop, so
that it does not wait for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.api.alert_stream import alert_stream_router
from streams.api.history_routes import history_router
from streams.api.listing_routes import listing_router
from streams.kafka.alert_feed import AlertFeed
from streams.kafka.dismissals import Dismissals

if TYPE_CHECKING:
    from fastapi import APIRouter

    from schemas.codec import WriterSchemas
    from streams.api.alert_stream import Readmit
    from streams.api.reading import ReadingDesk
    from streams.kafka.balances import BalanceReader
    from streams.settings import Settings


class ReadingService:
    """Follows alerts and dismissals. Start it on the event loop, ask for the routes, close it."""

    def __init__(self, settings: Settings, schemas: WriterSchemas) -> None:
        self._dismissals = Dismissals(settings)
        self._feed = AlertFeed(settings, schemas)

    def start(self) -> None:
        """Begin to follow."""
        self._dismissals.start()
        self._feed.start()

    def close(self) -> None:
        """Stop following."""
        self._feed.close()
        self._dismissals.close()

    def end_streams(self) -> None:
        """Tell every stream of alerts that the process ends."""
        self._feed.end_readers("shutting_down")

    def routers(self, desk: ReadingDesk, balances: BalanceReader, readmit: Readmit) -> list[APIRouter]:
        """The routes. `readmit`: why a request that goes on would be refused by now."""
        return [
            alert_stream_router(self._feed, readmit),
            history_router(desk, balances),
            listing_router(desk, self._dismissals),
        ]
