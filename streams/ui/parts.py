"""What the pages ask and write through, and the addresses that they lead to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    from streams.api.finance import Desk
    from streams.api.intake import Intake
    from streams.api.query_routes import QueryDesk
    from streams.api.reading import ReadingDesk
    from streams.api.sessions import Sessions
    from streams.api.setting_versions import SettingVersions
    from streams.kafka.api_keys import Keyring
    from streams.kafka.balances import BalanceReader
    from streams.settings import Settings
    from streams.ui.shell import Shell
    from streams.ui.vitals import Verified


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything is started and closed by the process that serves the pages."""

    settings: Settings
    shell: Shell
    sessions: Sessions
    keyring: Callable[[], Keyring]
    balances: BalanceReader
    desk: ReadingDesk
    finance: Desk
    queries: QueryDesk
    intake: Intake
    versions: SettingVersions
    verified: Callable[[Verified], None]
    """Told of each verification that has an answer."""


def address(path: str, given: Mapping[str, Any], **more: Any) -> str:
    """An address with what is set in its query, so that it opens the same for another person."""
    query = [
        (name, each)
        for name, value in {**given, **more}.items()
        for each in (value if isinstance(value, list | tuple) else [value])
        if each not in ("", None)
    ]
    return f"{path}?{urlencode(query)}" if query else path
