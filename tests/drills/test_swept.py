"""The ledger's round of replays, behind a proxy that answers some calls itself."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from drills.ledger import sweep
from drills.ledger.sweep import Swept, SweptTenant
from gates.deployment.requests import Answer, Request
from gates.evidence import JsonValue

MOVED = b'{"status": "started", "items": [{"id": "1"}]}'
PAGE = Answer(502, (), b"<h1>Bad Gateway</h1>", 1.0)


class LimitBehind:
    """What a round asks of its scene: each call moves an item and is charged wrongly, and some answers are lost."""

    http = property(lambda self: self)

    def __init__(self, *lost: int) -> None:
        self.lost, self.calls = lost, 0

    def burst(self, requests: Sequence[Request]) -> list[Answer]:
        numbers = range(self.calls, self.calls + len(requests))
        self.calls += len(requests)
        return [PAGE if n in self.lost else Answer(200, (), MOVED, 1.0) for n in numbers]

    def used(self, _company: str) -> tuple[int, int]:
        return 99, 99

    def claims(self, _area: str) -> bool:
        return True

    def known(self, **fields: JsonValue) -> dict[str, JsonValue]:
        return fields

    def reset_limit(self, _company: str) -> None:
        """Nothing is limited."""


def tenant(*lost: int) -> SweptTenant:
    """A tenant of which these calls are answered by the proxy."""
    limit: Any = LimitBehind(*lost)
    limit.has_rows = False
    sign = lambda fields: Request("POST", "/dlq-replay", (), str(fields).encode())  # noqa: E731
    return SweptTenant(limit, str(lost), ({"max": 1},), itertools.repeat(sign), Swept())


@pytest.mark.parametrize("lost", [(), (1,)])
def test_a_limit_is_used_up_if_the_service_answered_each_call(lost: tuple[int, ...]) -> None:
    """A call that never reached the service used nothing up: that the next one is admitted shows no fault."""
    made = tenant(*lost)
    assert sweep._use_up(made) is not bool(lost)
    assert bool(made.swept.odd) is bool(lost)


@pytest.mark.parametrize(("lost", "told"), [((), 1), ((2,), 0)])
def test_a_charge_is_judged_where_every_answer_was_the_services(lost: tuple[int, ...], told: int) -> None:
    """An item that was moved and charged, and whose answer the proxy replaced, is not charged wrongly."""
    made = tenant(*lost)
    sweep._admitted(made, made)
    assert bool(made.swept.mischarged) is bool(told)
