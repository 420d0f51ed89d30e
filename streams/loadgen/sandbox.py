"""A sandbox next to a real installation, for a run that must not touch it: its own folder, ports and topics.

Rules of this file: with a local Kafka the run has a folder below the data folder, emptied first, and a broker of its
own in it that ends with the run. With a Kafka that is given, the run has a namespace of its own on it. One run of a
name at a time.
"""

from __future__ import annotations

import fcntl
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from streams.errors import OperatorError
from streams.kafka import topics_admin
from streams.local.broker import LocalBroker

if TYPE_CHECKING:
    from streams.settings import Settings


@contextmanager
def sandbox(
    settings: Settings, name: str, mark: str, say: Callable[[str], None], jit: Literal["quick", "full"] = "quick"
) -> Iterator[Settings]:
    """Settings of a running Kafka with empty topics; `name` is the folder's, `mark` makes the namespace unique.

    `jit`: how a broker of its own compiles (`broker_jit`): quick, for a run of a minute.

    Raises `OperatorError` when another run of that name goes on, and what starting a broker raises.
    """
    folder = (settings.data_dir / name).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with (settings.data_dir / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperatorError(f"another {name} runs in {folder}", "let it end first") from None
        ports = {"http_port": free_port(settings.http_port), "worker_metrics_port": 0}
        own = settings.model_copy(update={"data_dir": folder, **ports})
        if settings.kafka_bootstrap_servers is not None:
            _empty(settings, name)
            own = own.model_copy(update={"namespace": f"{settings.namespace}{name}-{mark}."})
            topics_admin.apply(own)
            yield own
            return
        LocalBroker(own).stop()  # what a killed run left behind
        _empty(settings, name)
        own = own.model_copy(update={"broker_port": free_port(settings.broker_port), "broker_jit": jit})
        broker = LocalBroker(own, progress=say)
        broker.start()
        try:
            own = own.model_copy(update={"kafka_bootstrap_servers": broker.bootstrap_servers})
            topics_admin.apply(own)
            yield own
        finally:
            broker.stop()


def _empty(settings: Settings, name: str) -> None:
    folder = settings.data_dir / name
    shutil.rmtree(folder)
    folder.mkdir()


def free_port(port: int) -> int:
    """The port itself when it is free, else another one."""
    for wanted in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OperatorError("no free port", "end some programs")
