"""How every process logs: one line an event on standard error, with its facts as key=value.

Rules: everything goes through the standard library's root logger (Faust, aiokafka, uvicorn too), so that all lines
look alike. No secrets: settings hold them in types that print as stars. Colours only on a terminal.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor

# Ours. Libraries (Faust, aiokafka, uvicorn, migrations) say at `info` what is of use only to who debugs them.
OWN = ("streams", "projections", "schemas")


def _told(record: logging.LogRecord) -> bool:
    """Faust's services announce each of their starts and stops, under the name of our modules."""
    return record.levelno > logging.INFO or not str(record.msg).startswith("[^")


def configure_logging(level: str = "info", *, as_json: bool = False) -> None:
    """Set up logging for this process; `level` is debug, info, warning or error."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if as_json:
        last: list[Processor] = [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    else:
        # Plain tracebacks: the rich ones print local variables, which may be anything.
        plain = structlog.dev.plain_traceback
        last = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=plain)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    if level != "debug":
        handler.addFilter(_told)
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
