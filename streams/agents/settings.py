"""The agent of settings: what an org may spend, at which prices, and when it gets alerts, from now on.

```
in       settings
gather   decode
decide   as money events (`streams.ledger.decide`): a setting is an entry, and applies to the records after it
out      the outputs of an account; dead letters
```
"""

from __future__ import annotations

from streams.agents.agent import ACCOUNT_OUTPUTS, DEAD_LETTERS, Agent
from streams.agents.money import decide

AGENT = Agent(
    name="settings",
    inputs=("settings",),
    outputs=(*ACCOUNT_OUTPUTS, DEAD_LETTERS),
    decide=decide,
)
