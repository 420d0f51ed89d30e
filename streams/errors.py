"""The failures that an operator can mend: one sentence what is wrong, one what to do.

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


class ApiKeysUnsupportedError(SettingRefusedError):
    """API keys are set, but nobody is asked for one yet, and none must think so."""

    def __init__(self) -> None:
        super().__init__(
            "CREDITS_API_KEYS_FILE is set, and API keys are not supported yet",
            "unset it, and keep the HTTP port on loopback or behind a proxy that asks for keys",
        )
