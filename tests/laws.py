"""How many examples a law is tried on.

A law whose example costs a database, or a ledger with everything around it, says so with `examples`: what is enough for
a change that breaks it outright in the default run, and five times as many in the runs that look for what is rare.
"""

from __future__ import annotations

import os

import hypothesis

PROFILE = os.environ.get("CREDITS_TEST_HYPOTHESIS_PROFILE", "default")
RARE = 5
"""Times as many examples in the profiles `thorough` and `long`."""

TIMEOUT_S = 14_400
"""Of a law in every profile but the default one."""

# A law that fails says so at once, with the example that was found and the line that runs it again. The smallest
# example takes minutes where one costs a database: CREDITS_TEST_HYPOTHESIS_PROFILE=shrink looks for it.
FIND = (hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate, hypothesis.Phase.target)


def load_profile() -> None:
    """Make the profiles, and take the one that CREDITS_TEST_HYPOTHESIS_PROFILE names."""
    default = hypothesis.settings(
        deadline=None,
        print_blob=True,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
        phases=FIND,
        max_examples=40,
    )
    hypothesis.settings.register_profile("default", default)
    hypothesis.settings.register_profile("shrink", default, phases=(*FIND, hypothesis.Phase.shrink))
    hypothesis.settings.register_profile("thorough", default, max_examples=200)
    hypothesis.settings.register_profile("long", default, max_examples=2_000)
    hypothesis.settings.load_profile(PROFILE)


def examples(default: int) -> int:
    """So many in the default run, and more in those that are to find what is rare."""
    return default * RARE if PROFILE in ("thorough", "long") else default
