"""The failures that an operator can fix: one sentence says what is wrong, one what to do.

Commands print such an error as one line, without a traceback, and exit 1. Everything else that is raised is
either a refusal by rule (data of the ledger) or a bug.
"""

from __future__ import annotations


class OperatorError(Exception):
    """Something outside the program must change before it can go on.

    `problem` says what is wrong and `remedy` what to do about it; both are one line. `code` is stable, for machines.
    """

    code = "operator_error"

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}: {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy


class KafkaUnavailableError(OperatorError):
    """No broker answers at the configured address."""

    code = "kafka_unavailable"


class SettingRefusedError(OperatorError):
    """A setting contradicts what exists, for example the number of partitions of the topics."""

    code = "setting_refused"


class NoApiKeysError(SettingRefusedError):
    """HTTP would listen beyond this machine, and no API key was ever made."""

    code = "no_api_keys"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"CREDITS_HTTP_HOST is {host}, and no API key exists to ask callers for",
            "run `credits keys create --role admin --name first`, or listen on 127.0.0.1",
        )
