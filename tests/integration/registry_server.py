"""The built-in registry behind HTTP, on a port of its own, by a real server that may go away and come back."""

from __future__ import annotations

import threading
import time
from typing import Any

import uvicorn
from fastapi import FastAPI

from streams.api.registry_routes import RegistryProblem, registry_router
from streams.kafka.registry_topic import TopicRegistry
from tests.brokers import free_port


class RegistryServer:
    """Serves a registry's calls at `url`, while it is started."""

    def __init__(self, registry: TopicRegistry) -> None:
        self._api = FastAPI()
        self._api.include_router(registry_router(registry))

        @self._api.exception_handler(RegistryProblem)
        async def answer(_: Any, error: RegistryProblem) -> Any:
            return error.answer()

        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._server: uvicorn.Server | None = None

    def start(self) -> None:
        """Answer from now on."""
        config = uvicorn.Config(self._api, port=self._port, log_level="warning", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)

    def stop(self) -> None:
        """Nobody answers any more."""
        if self._server is not None:
            self._server.should_exit = True
            self._thread.join(10)
            self._server = None
