"""The rate limit as its table shows it: a rolling window by the database clock, charged exactly, and nothing else."""

import time
from functools import partial
from typing import Any

import psycopg
import pytest

from drills.workbench.audit_chain import REFUSED, says
from drills.workbench.checks import LIMIT, TENANTS
from drills.workbench.credentials import REPLAY
from drills.workbench.rate_limit import Limit
from drills.workbench.waiting import PATIENCE_S
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.requests import replay_fields, token_post
from gates.deployment.sql.database import execute
from gates.deployment.tenants.tenants import Tenants
from gates.evidence import Severity, Where
from gates.text.foreign import count

pytestmark = pytest.mark.beside_load

ADMITTED = current().limit("calls")
NEXT = f"call {ADMITTED + 1}"
WINDOW_S = current().limit("window_s")
drill = partial(check, needs=TENANTS, after=LIMIT)

LOCK_HELD_S = 0.6
CLOSED_S, OPEN_S = WINDOW_S - 1.5, WINDOW_S + 1.0
"""Ages of calls at either edge of the window."""

TRIES = 3
CLEANED_S = 2.5
"""Within that time what cleans up every second or two has been there."""


@drill("drill/rate-limit/window-closed-until-300-s", covers=("C11",))
def test_window_closed(limit: Limit) -> None:
    """With the oldest call just under 300 s ago, the fourth is still refused.

    The window is shorter than promised: a script has many times its limit.
    """
    for _ in range(TRIES):
        company = limit.company("window")
        limit.fill(company)
        request, since_s = limit.request(company, f"{NEXT}, {CLOSED_S:g} s later"), limit.now_s()
        limit.back_date(company, CLOSED_S - limit.age_s(company))
        answer = limit.http.send(request)
        if CLOSED_S + limit.now_s() - since_s < WINDOW_S:
            break
    else:
        limit.seen.unmet(f"too slow to tell: the window had passed when the answer came, {TRIES} times")
    if answer.status == 200:
        limit.at_one_address(request)
    limit.seen.expect(request, answer, 429, "rate_limited")


@drill("drill/rate-limit/window-open-after-300-s", covers=("C11",))
def test_window_open(limit: Limit, tenant: str) -> None:
    """With all calls just over 300 s ago, three more are admitted, and a fourth is refused.

    A tenant that once used up its limit is locked out for longer than promised.
    """
    limit.exhaust(tenant)
    limit.back_date(tenant, OPEN_S)
    for number in range(1, ADMITTED + 1):
        request = limit.request(tenant, f"call {number}, {OPEN_S:g} s later")
        limit.passes(request)
    limit.limited(limit.request(tenant, f"{NEXT} of the new window"))


@drill("drill/rate-limit/window-rolls", covers=("C11",))
def test_window_rolls(limit: Limit, tenant: str) -> None:
    """When the oldest call leaves the window exactly one more is admitted: never more than 3 in any 300 s.

    The window is fixed, not rolling: 6 calls pass around its edge, where 3 are allowed.
    """
    limit.fill(tenant, 1)
    limit.back_date(tenant, WINDOW_S * 2 / 3)
    limit.fill(tenant, ADMITTED - 1)
    limit.limited(limit.request(tenant, NEXT), control=True)
    limit.back_date(tenant, WINDOW_S / 3 + 1)
    request = limit.request(tenant, "the oldest call is out of the window")
    limit.passes(request)
    limit.limited(limit.request(tenant, f"{ADMITTED} calls in the last {WINDOW_S / 3 + 2:g} s"))


@drill("drill/rate-limit/retry-after", severity=Severity.WARN, covers=("C02",))
def test_retry_after(limit: Limit, tenant: str) -> None:
    """A refusal says in whole seconds, 1 to 300, when to come back, and the time does not grow, also that of a forced
    replay, a dry run, or one by token.

    Clients retry at once, or never.
    """
    limit.fill(tenant)
    kinds = [limit.known(**fields) for fields in ({}, {"force": True}, {"dry_run": True})]
    refused = [limit.request(tenant, f"refused, {kind}", **kind) for kind in kinds]
    if token := limit.token_of(tenant):
        refused.append(token_post(REPLAY, replay_fields(tenant, max=1), token, "refused, by token"))
    found = [limit.limited(request).header("retry-after") or "" for request in refused]
    limit.seen.value(", ".join(found), due := f"1..{WINDOW_S}")
    assert all(1 <= count(f) <= WINDOW_S for f in found), f"Retry-After {found}; due: whole seconds {due}"
    assert [count(f) for f in found] == sorted(map(count, found), reverse=True), f"Retry-After grows: {found}"


@drill("drill/rate-limit/retry-after-is-true", severity=Severity.WARN, covers=("C02",))
def test_retry_after_is_true(limit: Limit, tenant: str) -> None:
    """Retry-After is at most 0.5 s shorter and at most 3 s longer than the time until the oldest admitted request
    leaves the window.

    A client that obeys it is refused again, or waits in vain.
    """
    limit.fill(tenant, 1)
    limit.back_date(tenant, WINDOW_S * 2 / 3)
    limit.fill(tenant, ADMITTED - 1)
    left = WINDOW_S - limit.age_s(tenant)
    header = limit.limited(limit.request(tenant, "refused")).header("retry-after") or ""
    limit.seen.value(header, f"{left:.1f} s")
    assert count(header), f"Retry-After is {header!r}; allowed: whole seconds"
    later = WINDOW_S - limit.age_s(tenant)
    limit.seen.require(abs(later - left) < 3, "the machine was too slow to compare the times")
    assert later - 0.5 <= count(header) <= left + 3, f"Retry-After {header} s, and the window has {left:.1f} s to go"


@pytest.mark.waits(CLEANED_S)
@drill("drill/rate-limit/refusal-changes-nothing", covers=("C13",))
def test_refusal_changes_nothing(limit: Limit, tenant: str) -> None:
    """A refused call does not lengthen the wait, nor do seconds shorten it: the tenant's row is as before.

    A client that retries is locked out for as long as it retries, or a cleanup job gives it its calls back.
    """
    limit.fill(tenant, 1)
    limit.back_date(tenant, WINDOW_S * 2 / 3)
    limit.fill(tenant, ADMITTED - 1)
    before = limit.buckets(tenant)
    limit.seen.require(
        limit.hits(tenant) == ADMITTED, f"{limit.hits(tenant)} hits after {ADMITTED} calls; as many are due"
    )
    for number in range(3):
        limit.limited(limit.request(tenant, f"refused {number}"))
    time.sleep(CLEANED_S)
    after = limit.buckets(tenant)
    limit.seen.value(sum(len(r["hits"]) for r in after), ADMITTED, "hits")
    moved = [(r["key"], len(r["hits"])) for r in before] == [(r["key"], len(r["hits"])) for r in after]
    told = [", ".join(f"{r['key']} with {len(r['hits'])} calls" for r in rows) or "no row" for rows in (before, after)]
    why = "; the times of the calls were changed" if moved else ""
    assert after == before, f"before three refusals: {told[0]}; after them: {told[1]}{why}"


@drill("drill/rate-limit/row-as-documented", severity=Severity.WARN, covers=("C01",))
def test_row_as_documented(limit: Limit, tenant: str) -> None:
    """A tenant and address have one row `replay:<company>:<ip>` with its admitted calls, count and window_start.

    The operators' query shows nothing, and the emergency procedure clears nothing.
    """
    before = limit.value("select clock_timestamp() - interval '5 milliseconds'")
    limit.fill(tenant, 2)
    after = limit.value("select clock_timestamp()")
    limit.at_one_address(limit.request(tenant))
    rows = limit.buckets(tenant)
    assert len(rows) == 1, f"two calls left rows {[r['key'] for r in rows]}; due: one"
    row: dict[str, Any] = rows[0]
    assert row["key"].startswith(f"replay:{tenant}:"), f"key {row['key']}"
    assert row["count"] == len(row["hits"]) == 2, f"count {row['count']}, {len(row['hits'])} hits; due: 2 and 2"
    assert row["window_start"] == row["hits"][0], f"window_start {row['window_start']}; due: the oldest hit"
    assert row["hits"] == sorted(row["hits"]), "the hits are not oldest first"
    for hit in row["hits"]:
        assert before <= hit <= after, (
            f"a hit is of {hit}; by the database clock the calls were from {before} to {after}"
        )
    # calls of the first milliseconds of a second pass the limits above
    assert any(hit.microsecond for hit in row["hits"]), (
        f"hits {row['hits']} are whole seconds; due: the call's own time"
    )
    limit.seen.count(6)


@drill("drill/rate-limit/row-is-the-limit", covers=("C12",))
def test_row_is_the_limit(limit: Limit, tenant: str, other: str) -> None:
    """The table alone decides: a tenant whose row is full is refused at its first call, on every instance. A full row
    of an address that begins like ours refuses nobody here.

    The count is kept in memory: a restart or another instance forgets it.
    """
    limit.admit(other, "a tenant with an empty row", control=True)
    rows = limit.buckets(other)
    assert len(rows) == 1, f"an admitted call left {len(rows)} rows in edge_rate_limits; due: one"
    address = str(rows[0]["key"]).split(":", 2)[2]
    for key in (f"replay:{tenant}:{address}", f"replay:{other}:{address}0"):
        execute(
            limit.db,
            "insert into public.edge_rate_limits (key, hits) values"
            " (%s, array(select now() - make_interval(secs => n) from generate_series(%s::int - 1, 0, -1) n))",
            key,
            ADMITTED,
        )
    limit.admit(other, "a full row of another address")
    for number in range(1, 5):
        limit.limited(limit.request(tenant, f"call {number} with a full row"))


@drill("drill/rate-limit/deleting-the-row-resets", severity=Severity.WARN, covers=("C12",))
def test_deleting_the_row_resets(limit: Limit, tenant: str) -> None:
    """Deleting the row resets the limit at once, and so does a row without calls, where there can be one.

    The emergency procedure of the checklist does not work.
    """
    limit.exhaust(tenant)
    limit.reset_limit(tenant)
    request = limit.request(tenant, "after the row was deleted")
    limit.passes(request)
    if current().has("edge_rate_limits", "hits"):
        try:
            execute(limit.db, "update public.edge_rate_limits set hits = '{}' where key like %s", f"replay:{tenant}:%")
        except psycopg.errors.IntegrityError:
            return  # the limit is kept as a row for each call
        limit.passes(limit.request(tenant, "where its row has no calls"))


@drill("drill/rate-limit/refused-call-does-nothing", covers=("C13",))
def test_refused_call_does_nothing(limit: Limit, tenants: Tenants, tenant: str) -> None:
    """A call refused with 429 moves no item, opens no run and charges no budget.

    The work is done before the limit is looked at, and the limit limits nothing.
    """
    limit.fill(tenant)
    tenants.add_items(tenant, 2)
    before = limit.digest(tenant)
    limit.limited(limit.request(tenant, "refused", max=2))
    assert limit.digest(tenant) == before, "a refused call changed rows of its tenant"
    limit.reset_limit(tenant)
    limit.admit(tenant, "the same call, admitted", control=True, max=2)
    limit.seen.require(limit.digest(tenant) != before, "the admitted twin changed nothing either")


@drill("drill/rate-limit/refusals-audited-once-a-minute", severity=Severity.WARN, covers=("C13",))
def test_refusals_audited(limit: Limit, tenant: str, other: str) -> None:
    """Refusals by the limit are audited, one row for a tenant and minute, however many there are, by token too.

    Abuse leaves no trace, or fills the audit trail.
    """
    minutes = limit.minutes()
    limit.exhaust(tenant)  # which is refused, too
    for number in range(4):
        limit.limited(limit.request(tenant, f"refused {number}"))

    tenants = [tenant]
    if token := limit.token_of(other):
        limit.fill(other)
        limit.limited(token_post(REPLAY, replay_fields(other, max=1), token, "refused, by token"))
        tenants.append(other)

    def probe() -> list[int]:
        return [sum(says(row, "rate_limited") for row in limit.audit(one, REFUSED)) for one in tenants]

    # the row comes in a transaction of its own, which the answer need not wait for
    limit.until_true(lambda: all(probe()), within_s=PATIENCE_S)
    rows = probe()
    allowed = minutes()
    limit.seen.value(max(rows), allowed, "rows")
    assert 1 <= min(rows) <= max(rows) <= allowed, (
        f"5 refusals, and one by token, left {rows} audit rows; due: 1 a minute"
    )


@drill("drill/rate-limit/locked-store-fails-closed", covers=("C14",))
def test_locked_store(limit: Limit, tenant: str) -> None:
    """While the tenant's row cannot be read, a call over the limit is not admitted.

    The limit ends where the load begins: a store that is slow or gone lets everything pass.
    """
    limit.exhaust(tenant)
    request = limit.request(tenant, "a call over the limit, its row locked")
    answer, _ = limit.sent_while_locked(tenant, request, LOCK_HELD_S)
    limit.seen.expect(request, answer, (429, 503))


@drill("drill/rate-limit/missing-store-fails-closed", where=Where.REFERENCE, covers=("C14",), phase="last")
def test_missing_store(limit: Limit, tenants: Tenants, tenant: str) -> None:
    """While the table of the limit cannot be read, a replay is refused with 503 `unavailable` and does nothing.

    The limit ends where the trouble begins: a store that is gone lets everything pass.
    """
    tenants.add_items(tenant, 2)
    limit.admit(tenant, "a dry run, the store in place", control=True, dry_run=True)
    before = limit.digest(tenant)
    request = limit.request(tenant, "a replay, the store gone", max=2)
    try:
        limit.rows("alter table public.edge_rate_limits rename to edge_rate_limits_away")
    except psycopg.errors.InsufficientPrivilege:
        limit.seen.unmet("the login of DATABASE_URL may not rename tables")
    try:
        answer = limit.http.send(request)
    finally:
        limit.rows("alter table public.edge_rate_limits_away rename to edge_rate_limits")
    limit.seen.expect(request, answer, 503, busy=True)
    assert limit.digest(tenant) == before, "a replay was carried out while the limit could not be asked"
    limit.admit(tenant, "the store back in place", max=2)
