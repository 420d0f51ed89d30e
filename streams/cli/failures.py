"""How an error looks to who typed the command: one line, what is wrong and what to do, and a status."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from dataclasses import dataclass

import typer
from typer._click.exceptions import ClickException, NoArgsIsHelpError, UsageError  # Typer names no other home for them

from streams.errors import OperatorError
from streams.text_safety import printable, printable_json, printable_lines, redacted

STATUS_FAILED, STATUS_MISUSED, STATUS_INTERRUPTED = 1, 2, 130
LINE_CHARS_MAX = 600


@dataclass(frozen=True)
class Failure:
    """How an error is reported. `remedy` may be empty; `bug` is true when only a change of the code can fix it."""

    code: str
    problem: str
    remedy: str
    status: int = STATUS_FAILED
    bug: bool = False

    @property
    def line(self) -> str:
        """One line for people."""
        text = f"{self.problem}: {self.remedy}" if self.remedy else self.problem
        text = printable(redacted(" ".join(text.split())))
        return f"error: {text[:LINE_CHARS_MAX]}"


def explain(error: BaseException) -> Failure:
    """What to tell about `error`."""
    if isinstance(error, OperatorError):
        return Failure(error.code, error.problem, error.remedy)
    if isinstance(error, UsageError):
        command = error.ctx.command_path if error.ctx else "credits"
        message = error.format_message().replace("Value error, ", "").rstrip(".")
        return Failure("wrong_call", message, f"see `{command} --help`", STATUS_MISUSED)
    if isinstance(error, ClickException):
        return Failure("wrong_call", error.format_message(), "", error.exit_code)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return Failure("interrupted", "interrupted", "", STATUS_INTERRUPTED)
    return _of_kafka(error) or _of_the_stores(error) or _of_the_system(error) or _of_a_bug(error)


def report(error: BaseException, *, as_json: bool) -> int:
    """Print `error` for who called, and return the exit status."""
    if isinstance(error, BrokenPipeError):  # `credits tail ledger | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return STATUS_FAILED
    if isinstance(error, NoArgsIsHelpError):
        print(error.ctx.get_help() if error.ctx else "")
        return STATUS_MISUSED
    failure = explain(error)
    if "structlog" in sys.modules and _logged(failure, error):
        return failure.status
    if os.environ.get("CREDITS_DEBUG", "").lower() in {"1", "true", "yes", "on"}:
        print(printable_lines(redacted("".join(traceback.format_exception(error)))), file=sys.stderr)
    if as_json:
        document = {"code": failure.code, "message": redacted(failure.problem), "remedy": redacted(failure.remedy)}
        print(printable_json(json.dumps({"error": document})))
    print(failure.line, file=sys.stderr)
    return failure.status


def _logged(failure: Failure, error: BaseException) -> bool:
    """Whether the process logs JSON, and the failure was a line of it."""
    from streams.logging import logs_json

    if not logs_json():
        return False
    logger = logging.getLogger("streams.cli")
    logger.error(failure.line, extra={"code": failure.code}, exc_info=error if failure.bug else None)
    return True


def _of_kafka(error: BaseException) -> Failure | None:
    """Kafka's own errors, known by their module so that a command without Kafka does not load its clients."""
    if not type(error).__module__.startswith(("cimpl", "confluent_kafka", "aiokafka")):
        return None
    detail = error.args[0] if error.args else error
    name = detail.name() if hasattr(detail, "name") else type(error).__name__
    text = detail.str() if hasattr(detail, "str") else str(error)
    if name in {"_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_RESOLVE", "KafkaConnectionError"}:
        return Failure(
            "kafka_unavailable",
            f"Kafka does not answer ({text})",
            "start it with `credits up`, or set CREDITS_KAFKA_BOOTSTRAP_SERVERS (`credits doctor` tells more)",
        )
    if name in {"_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "_SSL"}:
        return Failure("kafka_login", f"Kafka refuses the login ({text})", "check CREDITS_KAFKA_SASL_… and …_SSL_…")
    if "AUTHORIZATION_FAILED" in name:
        return Failure("kafka_rights", f"Kafka denies access ({text})", "ask for the right on the named resource")
    if name == "UNKNOWN_TOPIC_OR_PART":
        return Failure("no_topics", f"a topic does not exist ({text})", "run `credits topics apply`")
    return Failure("kafka_error", f"Kafka: {text}", "run `credits doctor`")


def _of_the_stores(error: BaseException) -> Failure | None:
    """The registry and ClickHouse, by name for the same reason."""
    match type(error).__name__:
        case "RegistryUnavailableError":
            remedy = "check CREDITS_SCHEMA_REGISTRY_URL, or Kafka when it is unset (`credits doctor` tells more)"
            return Failure("registry_unavailable", str(error), remedy)
        case "ClickHouseUnavailableError":
            remedy = "check CREDITS_CLICKHOUSE_URL; a chDB folder belongs to one process, `serve` when it runs"
            return Failure("clickhouse_unavailable", f"ClickHouse cannot be had ({error})", remedy)
    return None


def _of_the_system(error: BaseException) -> Failure | None:
    if isinstance(error, TimeoutError) and error.errno is None:
        return Failure("no_answer", f"no answer came in time ({error})".replace(" ()", ""), "run `credits doctor`")
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Failure("system", f"{where}{error.strerror or error}", "")
    return None


def _of_a_bug(error: BaseException) -> Failure:
    message = str(error).strip().splitlines() or [""]
    problem = f"unexpected {type(error).__name__}: {message[0]}" if message[0] else f"unexpected {type(error).__name__}"
    return Failure("bug", problem, "this is a bug; CREDITS_DEBUG=1 shows where", bug=True)
