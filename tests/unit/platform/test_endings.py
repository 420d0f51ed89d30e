"""Each part has a restart budget of its own, and pauses that grow."""

from __future__ import annotations

from streams.local.system import DOWN_PAUSE_FIRST_S, DOWN_PAUSE_MAX_S, RESTARTS_MAX, RESTARTS_WINDOW_S, Endings


def test_a_budget_is_for_a_minute() -> None:
    endings = Endings()
    assert [endings.too_many(float(n)) for n in range(RESTARTS_MAX + 1)] == [False] * RESTARTS_MAX + [True]
    assert not endings.too_many(RESTARTS_WINDOW_S + RESTARTS_MAX + 1)


def test_down_is_said_once_and_tried_again_with_growing_pauses() -> None:
    endings = Endings()
    pauses = []
    assert endings.down("port taken", 100.0)
    for _ in range(8):
        pauses.append(endings.retry_at_s - 100.0)
        assert not endings.down("port taken", 100.0)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (DOWN_PAUSE_FIRST_S, DOWN_PAUSE_MAX_S)
    assert endings.down("something else", 100.0)
    endings.up()
    assert endings.down("something else", 200.0)
    assert endings.retry_at_s == 200.0 + DOWN_PAUSE_FIRST_S
