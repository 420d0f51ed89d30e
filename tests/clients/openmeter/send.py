"""OpenMeter's official Python SDK against the address and key given: one event, a batch, and one that is refused.

Prints what the refusal was, as JSON.
"""

import datetime
import json
import sys

from corehttp.exceptions import HttpResponseError  # type: ignore[import-not-found]  # of its own environment
from openmeter import Client  # type: ignore[import-not-found]
from openmeter.models import Event  # type: ignore[import-not-found]

address, token = sys.argv[1:]
now = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)


def event(number: int, **changes: object) -> Event:
    given = {"id": f"e{number}", "source": "my-app", "specversion": "1.0", "type": "prompt", "subject": "acme"}
    data = {"tokens": 100 + number, "model": "gpt-4o", "type": "input"}
    return Event(**{**given, "time": now, "data": data, **changes})


client = Client(endpoint=address, token=token)
client.events.ingest_event(event(1))
client.events.ingest_events([event(2), event(3, data={"prompt_tokens": 5, "completion_tokens": 10})])
try:
    client.events.ingest_events([event(4), event(5, subject="")])
except HttpResponseError as error:
    print(json.dumps({"status": error.status_code, "body": json.loads(error.response.text())}))
