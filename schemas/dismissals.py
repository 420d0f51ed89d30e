"""What the topic `dismissals` holds: which alert was dismissed, when, and by whom. JSON, under the alert's id.

Rules of this file: a leaf, pure; what is no dismissal, or stands under another alert's id, is None and never an error:
a reader of the topic must go on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from schemas.times import TIME_MAX


@dataclass(frozen=True, slots=True)
class Dismissal:
    """An alert that a person has dismissed. `dismissed_at`: microseconds since 1970."""

    org_id: str
    alert_id: str
    dismissed_at: int
    actor: str

    def encode(self) -> bytes:
        """The record's value."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()


def dismissal_of(key: bytes | None, value: bytes | None) -> Dismissal | None:
    """The dismissal in a record; None for what is none."""
    try:
        fields = json.loads(value or b"")
        found = Dismissal(fields["org_id"], fields["alert_id"], fields["dismissed_at"], fields["actor"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    texts = (found.org_id, found.alert_id, found.actor)
    if not all(isinstance(text, str) for text in texts) or type(found.dismissed_at) is not int:
        return None
    if not 0 <= found.dismissed_at <= TIME_MAX or key != found.alert_id.encode("utf-8", "replace"):
        return None
    return found
