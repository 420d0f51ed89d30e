"""Processes that `credits up` starts end with it, even when it is killed without a chance to tell them."""

from __future__ import annotations

import os
import signal
import threading
import time

PARENT_VARIABLE = "CREDITS_PARENT_PID"
WATCH_S = 0.5


def stop_with_parent() -> None:
    """Ask this process to stop (SIGTERM) when the process that started it, named in the environment, is gone."""
    named = os.environ.get(PARENT_VARIABLE, "")
    if not named.isdigit():
        return

    def watch() -> None:
        while os.getppid() == int(named):
            time.sleep(WATCH_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
