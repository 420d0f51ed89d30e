"""Where API keys are written down: a compacted topic, and a file that an operator may give in addition.

The rules of this file:
1. The topic `api_keys` has one record a key, under its id. `credits keys` writes it, and every process that serves HTTP
   follows it: a new or revoked key is known everywhere as soon as Kafka has handed it on, within a second.
2. CREDITS_API_KEYS_FILE holds further keys, one JSON document a line, as `credits keys create --json` prints them under
   `record`. It is looked at every `FILE_INTERVAL_S`; a key that leaves the file is known no longer. A line that is no
   key is refused at the start; later the file's last good keys stay, and the log says so.
3. While Kafka is away the keys stay as they were read last.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import Message

from streams.errors import OperatorError
from streams.kafka.api_keys import (
    EVERY_ORGANISATION,
    ID_BYTES,
    SECRET_BYTES,
    ApiKey,
    Keyring,
    KeyRole,
    decode_key,
    digest_of,
    new_token,
)
from streams.kafka.clients import producer_config
from streams.kafka.latest import LatestRecords

if TYPE_CHECKING:
    from streams.settings import Settings

log = structlog.get_logger(__name__)

FETCH_WAIT_MS = 500
"""A record is handed on at once; this is only how often the broker answers that there is none."""
FILE_INTERVAL_S = 0.5
FILE_BYTES_MAX = 64 * 1024 * 1024
WRITE_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 30.0


class KeysFileError(OperatorError):
    """CREDITS_API_KEYS_FILE cannot be used."""

    code = "api_keys_file"


class KeyReader(LatestRecords):
    """Follows the keys. Start it, wait until it is current, ask `keyring` from any thread, close it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "api_keys", fetch_wait_ms=FETCH_WAIT_MS)
        self._file = settings.api_keys_file
        self._of_topic = Keyring()
        self._of_file: list[ApiKey] = []
        self._seen: tuple[int, int] | None = None
        self.keyring = Keyring()
        """Replaced as a whole when a key changes."""
        self._merging = threading.Lock()
        self._watching = threading.Thread(target=self._watch, name="keys file", daemon=True)

    def start(self) -> None:
        """Begin to read; raises `KeysFileError` when the file cannot be used."""
        if self._file is not None:
            self._seen = _state_of(self._file)
            self._of_file = keys_in(self._file)
            self._merge()
            self._watching.start()
        super().start()

    def close(self) -> None:
        """Stop reading, and wait for the threads."""
        super().close()
        if self._watching.ident is not None:
            self._watching.join(timeout=10)

    def _take(self, messages: Sequence[Message]) -> None:
        super()._take(messages)
        self._merge()

    def _keep(self, message: Message) -> None:
        if message.value() is not None and not self._of_topic.fold(message.value()):
            named = (message.key() or b"")[:64].decode(errors="replace")
            log.warning("a record of the API keys' topic is no key", record=named)

    def _merge(self) -> None:
        with self._merging:
            self.keyring = Keyring([*self._of_file, *self._of_topic.keys()])

    def _watch(self) -> None:
        assert self._file is not None
        while not self._live.stopping.wait(FILE_INTERVAL_S):
            state = _state_of(self._file)
            if state == self._seen:
                continue
            self._seen = state
            try:
                keys = keys_in(self._file)
            except KeysFileError as error:
                log.error("the API keys' file cannot be used; its last keys stay", problem=error.problem)
                continue
            self._of_file = keys
            self._merge()
            log.info("API keys read again", file=str(self._file), keys=len(keys))


def check_keys_file(settings: Settings) -> None:
    """Raise `KeysFileError` when CREDITS_API_KEYS_FILE is set and cannot be used: before anything else is started."""
    if settings.api_keys_file is not None:
        keys_in(settings.api_keys_file)


def keys_in(file: Path) -> list[ApiKey]:
    """The keys of a file; raises `KeysFileError` that names the line which is none."""
    try:
        with file.open("rb") as lines:
            content = lines.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise KeysFileError(f"cannot read {file} ({error.strerror})", "set CREDITS_API_KEYS_FILE") from error
    if len(content) > FILE_BYTES_MAX:
        raise KeysFileError(f"{file} has more than {FILE_BYTES_MAX:,} bytes", "set CREDITS_API_KEYS_FILE")
    found = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        key = decode_key(line)
        if key is None:
            raise KeysFileError(
                f"line {number} of {file} is no key", "take the lines from `credits keys create --json`, under `record`"
            )
        found.append(key)
    return found


def _state_of(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def read_keys(settings: Settings, timeout_s: float = READ_TIMEOUT_S) -> Keyring:
    """The keys as they are now, those of the file included; raises `KafkaUnavailableError`, `KeysFileError`."""
    reader = KeyReader(settings)
    reader.start()
    try:
        reader.wait_until_current(timeout_s)
        return reader.keyring
    finally:
        reader.close()


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a key is to be for."""

    name: str
    roles: tuple[KeyRole, ...]
    organisations: tuple[str, ...] = (EVERY_ORGANISATION,)
    expires_at: int | None = None
    """Microseconds since 1970; None: it does not expire."""
    requests_per_s: int | None = None
    """None: the limit of the settings."""


def create_key(settings: Settings, terms: KeyTerms, now: int) -> tuple[str, ApiKey]:
    """Make a key and write it down: what to hand out, and what is written. `now`: microseconds since 1970."""
    token = new_token(secrets.token_bytes(ID_BYTES + SECRET_BYTES))
    key = ApiKey(
        key_id=token.split("_")[1],
        sha256=digest_of(token),
        name=terms.name,
        roles=terms.roles,
        organisations=terms.organisations,
        created_at=now,
        expires_at=terms.expires_at,
        requests_per_s=terms.requests_per_s,
    )
    write_keys(settings, [key])
    return token, key


def first_admin_key(settings: Settings) -> str | None:
    """Make a key that may do everything when no key was ever made, and return it; else None."""
    if len(read_keys(settings)):
        return None
    return create_key(settings, KeyTerms("first", (KeyRole.ADMIN,)), time.time_ns() // 1_000)[0]


def write_keys(settings: Settings, keys: Iterable[ApiKey]) -> None:
    """Write keys into the topic; returns when Kafka has them, and raises `OperatorError` when it has not."""
    from confluent_kafka import Producer

    from schemas.topics import Topics

    failures: list[str] = []
    producer = Producer(producer_config(settings, linger_ms=0))
    for key in keys:
        producer.produce(
            Topics(settings.namespace).name("api_keys"),
            key=key.key_id.encode(),
            value=key.encode(),
            on_delivery=lambda error, _: failures.append(str(error)) if error is not None else None,
        )
    if producer.flush(WRITE_TIMEOUT_S) or failures:
        raise OperatorError(
            f"Kafka did not take the key ({failures[0] if failures else 'no answer'})", "see `credits doctor`"
        )
