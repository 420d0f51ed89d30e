"""How every process logs: one line an event on standard error, with its facts as key=value, or as one JSON object.

Rules: everything goes through the standard library's root logger (Faust, aiokafka, uvicorn too), so that all lines
look alike. No secrets: settings hold them in types that print as stars, and what a library puts into a message is
hidden here. Nor control characters: a record's id can neither paint the terminal nor write a line of its own. Colours
only on a terminal.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Hashable, MutableMapping
from typing import TYPE_CHECKING, Any, TextIO

import structlog

from streams.text_safety import HIDDEN, names_a_secret, printable, printable_json, printable_lines, redacted

if TYPE_CHECKING:
    from structlog.typing import Processor

# Ours. Libraries (Faust, aiokafka, uvicorn, migrations) say at `info` what is of use only to who debugs them.
OWN = ("streams", "projections", "schemas")
REPEAT_S = 10.0
REMEMBERED_MAX = 1_000
KEYS_MAX = 10_000


class OncePerInterval:
    """Lets each key through once per interval: for lines that would repeat themselves. One thread."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._last_s: dict[Hashable, float] = {}

    def is_due(self, key: Hashable, now_s: float) -> bool:
        """Whether a line for this key may be written at the monotonic time `now_s`; then it counts as written."""
        if now_s - self._last_s.get(key, -self._interval_s) < self._interval_s:
            return False
        if len(self._last_s) >= KEYS_MAX:
            self._last_s.clear()
        self._last_s[key] = now_s
        return True


class Telling(logging.Filter):
    """What of others' records is told: not their announcements, and the same complaint once in `REPEAT_S`.

    While a broker is away each client complains many times a second. What was left out is counted in the next one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` is told."""
        text = str(record.msg)
        if record.levelno <= logging.INFO:
            # Faust's services announce each start and stop, under the names of our modules.
            return not text.startswith("[^")
        if record.name.partition(".")[0] in OWN:
            return True
        at, left_out = self._told.get((record.name, text), (-REPEAT_S, 0))
        if record.created - at < REPEAT_S:
            self._told[record.name, text] = (at, left_out + 1)
            return False
        if len(self._told) >= REMEMBERED_MAX:
            self._told.clear()
        self._told[record.name, text] = (record.created, 0)
        if left_out:
            record.msg = f"{text} (and {left_out} more like it)"
        return True


EventDict = MutableMapping[str, Any]


def _without_secrets(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Hide secrets in every value; what is no text is shown as its text, where that has one."""
    for name, value in event.items():
        if names_a_secret(name):
            event[name] = HIDDEN
        elif isinstance(value, str):
            event[name] = redacted(value)
        elif not isinstance(value, int | float | None):
            hidden = redacted(text := repr(value))
            event[name] = value if hidden == text else hidden
    return event


def _printable(_logger: object, _method: str, event: EventDict) -> EventDict:
    """A code for each control character. Lines of a traceback are marked: none can pass for a line of the log."""
    for name, value in event.items():
        if name in ("exception", "stack"):
            event[name] = "\n".join(f"| {line}" for line in printable_lines(str(value)).split("\n"))
        elif isinstance(value, str):
            event[name] = printable(value)
        elif not isinstance(value, int | float | None):
            event[name] = printable(repr(value))
    return event


def _json_line(logger: Any, method: str, event: EventDict) -> str:
    return printable_json(str(structlog.processors.JSONRenderer()(logger, method, event)))


class _JsonHandler(logging.StreamHandler[TextIO]):
    """Writes JSON; its type says so."""


def logs_json() -> bool:
    """Whether this process logs JSON: then nothing else may be written to standard error."""
    return any(isinstance(handler, _JsonHandler) for handler in logging.getLogger().handlers)


def configure_logging(level: str = "info", *, as_json: bool = False) -> None:
    """Set up logging for this process; `level` is debug, info, warning or error. As JSON: one object a line."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if as_json:
        # One string: structured tracebacks hold local variables, which may be anything.
        last: list[Processor] = [structlog.processors.format_exc_info, _without_secrets, _json_line]
    else:
        # A traceback is a text of its own: the rich ones print local variables, which may be anything.
        console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
        last = [structlog.processors.format_exc_info, _without_secrets, _printable, console]
    handler = _JsonHandler(sys.stderr) if as_json else logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    if level != "debug":
        handler.addFilter(Telling())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper() if level == "debug" else max(logging.WARNING, logging.getLevelName(level.upper())))
    for name in OWN:
        logging.getLogger(name).setLevel(level.upper())
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
