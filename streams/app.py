"""The composition root of a ledger worker: settings in, a running Faust app with the engine and its processor out.

The rules of this file:
1. Everything is put together here, once; nothing below reads the environment or makes its own clients by accident.
2. A worker ends in one of two ways: stopped by a signal, with code 0, or by a failure, with code 1 and one line that
   says what to do. In both nothing is half committed.
3. Stopping has a time limit (`streams.stopping`): what hangs is left behind, because what was not committed has no
   effect. Stopped before it serves, it has nothing to finish and ends at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import faust
from aiokafka.errors import KafkaError

from streams.background import watched_threads
from streams.engine.engine import Engine
from streams.engine.health import WorkerHealth, serve_health
from streams.engine.internal_topics import prepare_topics
from streams.engine.memory import set_up_memory
from streams.engine.ports import EngineMetrics, Processor
from streams.errors import KafkaUnavailableError, OperatorError
from streams.kafka.faust_app import faust_app
from streams.kafka.quiet_logs import silence_repeats
from streams.settings import Settings
from streams.stopping import GROUP_LEAVE_TIMEOUT_S, Stopping, exit_now

log = logging.getLogger(__name__)

FETCH_BYTES_MAX = 1024 * 1024

MakeProcessor = Callable[[Settings], Processor[Any, Any]]


def build_app(settings: Settings) -> faust.App:
    """The Faust app of a ledger worker, without engine."""
    return faust_app(
        settings,
        settings.app_id,
        folder="faust",
        fetch_bytes_max=FETCH_BYTES_MAX,
        instance_name=settings.worker_name,
    )


def run_worker(
    settings: Settings,
    make_processor: MakeProcessor,
    metrics: EngineMetrics | None = None,
    stopping: Stopping | None = None,
) -> int:
    """Run a worker until it is stopped or fails; returns the exit code.

    `stopping` listens for SIGINT and SIGTERM; without one, it is made here.
    """
    stopping = stopping or Stopping(settings.stop_grace_s)
    silence_repeats()
    set_up_memory()
    processor = make_processor(settings)
    try:
        prepare_topics(settings, processor.inputs, processor.outputs, processor.seen_windows)
    except OperatorError as error:
        log.error("%s", error)
        return 1
    return asyncio.run(_run(settings, processor, metrics, stopping))


async def _run(
    settings: Settings, processor: Processor[Any, Any], metrics: EngineMetrics | None, stopping: Stopping
) -> int:
    app = build_app(settings)
    engine = Engine(settings, processor, metrics)
    engine.bind(app)
    health = WorkerHealth(engine)
    port = settings.worker_metrics_port
    server = serve_health(health, port, settings.worker_metrics_host) if port else None
    started_s = time.monotonic()
    failure: BaseException | None
    try:
        with watched_threads(engine.fail):
            failure = await _start(engine) or await _serve(app, engine, stopping.graceful_stop_event(), started_s)
    except OperatorError as error:
        failure = error
    if failure is not None:
        _tell(failure, debug=settings.debug)
        stopping.start_deadline()
    code = 0 if failure is None else 1
    await engine.stop()
    leaving = asyncio.create_task(app.stop())
    if not (await asyncio.wait({leaving}, timeout=GROUP_LEAVE_TIMEOUT_S))[0]:
        log.warning("The consumer group could not be left in time; it finds out by itself")
        exit_now(code)
    leaving.result()
    if server is not None:
        server.shutdown()
    return code


async def _start(engine: Engine) -> BaseException | None:
    """Start the engine; what failed meanwhile. It may wait for long, and after a failure for what never comes."""
    start = asyncio.create_task(engine.start())
    either: set[asyncio.Future[Any]] = {start, engine.failed}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if engine.failed.done():
        start.cancel()
        return engine.failed.result()
    start.result()
    return None


async def _serve(app: faust.App, engine: Engine, stop_event: asyncio.Event, started_s: float) -> BaseException | None:
    """Serve until a signal or a failure; the failure."""
    start = asyncio.create_task(app.start(), name="faust")
    stop = asyncio.create_task(stop_event.wait())
    ready = asyncio.create_task(engine.ready.wait())
    crashed = asyncio.create_task(app.wait_until_stopped())
    waiting: set[asyncio.Future[Any]] = {start, stop, ready, crashed, engine.failed}
    while True:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if ready in done:
            log.info("Worker is ready after %.1f s", time.monotonic() - started_s)
        if engine.failed in done:
            return engine.failed.result()
        if start in done and (error := start.exception()) is not None:
            return error
        if crashed in done:
            return app.crash_reason or RuntimeError("Faust has stopped")
        if stop in done:
            return None
        waiting -= done


def _tell(failure: BaseException, *, debug: bool) -> None:
    if isinstance(failure, KafkaError) and failure.retriable:
        failure = KafkaUnavailableError(f"Kafka went away while it was started ({failure})", "start it again")
    if isinstance(failure, OperatorError) and not debug:
        log.error("The worker stops: %s", failure)
    else:
        log.error("The worker stops: %r", failure, exc_info=failure)
