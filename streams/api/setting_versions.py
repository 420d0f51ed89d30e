"""Which version of a setting was sent last: what `ETag` and `If-Match` of settings are about.

The rules of this file:
1. The version of a setting is that of the last record about it in the settings topic, from any sender, and whether the
   ledger has taken it or not: after a refusal a client has to look again, and nothing is overwritten unseen.
2. Kept in memory are a hash and an offset of each (organisation, kind, subject), about 300 bytes; what the record says
   is read from Kafka when somebody asks.
3. Requests share the wait for the topic's end, and its failure. A read of Kafka that gets nothing for
   `ASK_TIMEOUT_S` is given up: while Kafka is away each request is answered within two of them.
4. One process sees its own writes in order. Two processes that write the same setting within the few milliseconds
   between looking and Kafka's acknowledgement do not see each other: the later record holds.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Message

from schemas.codec import UndecodableError, WriterSchemas, decode_one
from schemas.enums import SettingKind
from schemas.settings_bodies import load_json
from streams.api.problems import ProblemError
from streams.api.shared_wait import SharedWait
from streams.kafka.latest import ASK_TIMEOUT_S, LatestRecords
from streams.kafka.reader import read_range

if TYPE_CHECKING:
    from streams.settings import Settings

FETCH_WAIT_MS = 500

SUBJECTS: Final[Mapping[SettingKind, str | None]] = MappingProxyType(
    {
        SettingKind.ORG: None,
        SettingKind.WALLET: "unit",
        SettingKind.BUDGET: "budget_id",
        SettingKind.THRESHOLDS: "unit",
        SettingKind.MONTH_LIMITS: "unit",
        SettingKind.AUTO_TOPUP: "unit",
        SettingKind.MODEL_ACCESS: None,
        SettingKind.MEMBER: "user_id",
        SettingKind.PRICE_OVERRIDE: "price_id",
    }
)
"""The field of the body that says which one of its kind a setting is; None: there is one for each organisation."""

Name = tuple[str, str, str]
"""Organisation, kind, subject."""


@dataclass(frozen=True, slots=True)
class Version:
    """The last record about a setting: its tag, and where it lies."""

    tag: str
    partition: int
    offset: int


def name_of(fields: Mapping[str, Any]) -> Name | None:
    """Which setting a record is about; None when it names none."""
    try:
        subject_field = SUBJECTS[SettingKind(fields["kind"])]
        subject = "" if subject_field is None else str(load_json(fields["body"])[subject_field])
    except (ValueError, KeyError, TypeError):
        return None
    return fields["org_id"], fields["kind"], subject


def tag_of(fields: Mapping[str, Any]) -> str:
    """The version of a setting after this record, as `ETag` has it without the quotes."""
    text = "\0".join((fields["org_id"], fields["kind"], fields["setting_id"], fields["body"]))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


class SettingVersions(LatestRecords):
    """Follows the settings topic. Start it, ask it, close it."""

    def __init__(self, settings: Settings, writers: WriterSchemas) -> None:
        super().__init__(settings, "settings", fetch_wait_ms=FETCH_WAIT_MS)
        self._writers = writers
        self._reads_with = settings.model_copy(update={"read_timeout_s": ASK_TIMEOUT_S})
        self._until_current = SharedWait(self.wait_until_current)
        self._versions: dict[Name, Version] = {}
        self.writing = asyncio.Lock()
        """Held between looking at a version and the acknowledgement of the next one."""

    async def current(self, name: Name) -> Version | None:
        """The last version of a setting; None when there is none. Raises `KafkaUnavailableError`."""
        await self._until_current()
        return self._versions.get(name)

    def record(self, version: Version) -> dict[str, Any]:
        """The record of a version, read from Kafka. Blocks; raises `ProblemError` when it is gone."""
        place = (self._topic, version.partition)
        for batch in read_range(self._reads_with, {place: version.offset}, {place: version.offset + 1}):
            for message in batch:
                fields: dict[str, Any] = decode_one("setting", message.value(), self._writers)
                return fields
        raise ProblemError(404, "unknown_setting", "the record of that setting is not in Kafka any more")

    def _keep(self, message: Message) -> None:
        try:
            fields = decode_one("setting", message.value(), self._writers)
        except UndecodableError:  # a dead letter: it sets nothing
            return
        name = name_of(fields)
        if name is not None and (message.key() or b"") == name[0].encode():
            self._versions[name] = Version(tag_of(fields), message.partition(), message.offset())


def check_version(found: Version | None, if_match: str | None, if_none_match: str | None) -> None:
    """Raise `ProblemError` (412) unless the setting is at the version that the caller has seen (RFC 9110)."""
    current = None if found is None else found.tag
    if if_none_match is not None:
        if if_none_match.strip() != "*":
            raise ProblemError(422, "invalid_field", "If-None-Match is * here: the setting must not be there yet")
        if found is not None:
            raise ProblemError(412, "version_mismatch", "the setting is there already", etag=f'"{current}"')
    if if_match is not None and (found is None or (if_match.strip() != "*" and current not in tags_in(if_match))):
        detail = "the setting was changed since: read it again"
        raise ProblemError(412, "version_mismatch", detail, etag=None if current is None else f'"{current}"')


def tags_in(header: str) -> set[str]:
    """The tags of an `If-Match`, without quotes; weak ones match nothing."""
    listed = (part.strip() for part in header.split(","))
    return {part[1:-1] for part in listed if len(part) > 2 and part[0] == part[-1] == '"'}
