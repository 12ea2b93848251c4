"""What declarations of checks share: needs, prerequisites, and tables of checks.

A table is one test with many cases. Each case is a check with its own id and claim.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from gates.evidence import CheckSpec, Severity, Where

SQL = ("database",)
TENANTS = ("tenants",)
AGENT = ("database", "drill-agent")
"""An agent that can be made to fail or to wait by the payload of an event."""

SIGNED = ("drill/authentication/signed-accepted",)
TOKEN = ("drill/tokens/admin-accepted",)
DELIVERS = ("drill/outbox/delivered-once",)
LIMIT = (*SIGNED, "drill/rate-limit/tenants-independent")

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Case:
    """One check of a table: the last part of its id, its claim, and what the test makes of it."""

    name: str
    claim: str
    value: Any = None
    covers: tuple[str, ...] = ()
    severity: Severity | None = None


def cases(
    prefix: str,
    table: Sequence[Case],
    *,
    severity: Severity = Severity.PAGE,
    where: Where = Where.SELF_CLEANING,
    needs: tuple[str, ...] = (),
    after: tuple[str, ...] = (),
    covers: tuple[str, ...] = (),
    phase: str = "main",
) -> Callable[[F], F]:
    """Declare a test with an argument `case` to be one check `<prefix>/<name>` for each case.

    The second paragraph of the test's docstring says what a violation costs, for all of them.
    """

    def mark(function: F) -> F:
        cost = " ".join((function.__doc__ or "").partition("\n\n")[2].split())
        made = [
            pytest.param(
                case,
                id=case.name,
                marks=pytest.mark.check(
                    CheckSpec(
                        id=f"{prefix}/{case.name}",
                        claim=case.claim,
                        cost=cost,
                        severity=case.severity or severity,
                        where=where,
                        needs=needs,
                        after=after,
                        covers=(*covers, *case.covers),
                        phase=phase,
                    )
                ),
            )
            for case in table
        ]
        marked: F = pytest.mark.parametrize("case", made)(function)
        return marked

    return mark
