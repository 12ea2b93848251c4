"""Faults of the rate limit, made by a proxy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import get_ident

import psycopg

from faults.catalogue import proxy
from faults.proxy.rewriting import (
    Fields,
    Make,
    World,
    after,
    after_replays,
    before,
    before_replays,
    company_of,
    fields_of,
    json_of,
    problem,
    whenever,
    with_json,
)
from faults.proxy.server import Defect, Forward, Reply, Sent

LIMIT = "drill/rate-limit"
ADDRESS, ALLOWED = "127.0.0.1", 3


def limited() -> Reply:
    return problem(429, "rate_limited").having("Retry-After", "100")


def passed() -> Reply:
    """An answer as if the request had been carried out."""
    return with_json(problem(200, ""), status="completed")


def is_used_up(world: World, company: str) -> bool:
    """Whether the tenant's limit is used up, whatever the address."""
    used = "select 1 from edge_rate_limits where key like %s and cardinality(hits) >= 3"
    return bool(world.rows(used, f"replay:{company}:%"))


def forgets_when(wanted: Callable[[Sent], bool]) -> Make:
    """Requests of this kind are not counted, nor is what was counted before them."""
    return before(lambda world, sent: world.forget(company_of(sent)) if sent.is_replay and wanted(sent) else None)


def instead(wanted: Callable[[World, Sent], bool], reply: Callable[[], Reply]) -> Make:
    """Replays of this kind get this answer, and are not handed on."""
    return lambda world: lambda sent, forward: reply() if sent.is_replay and wanted(world, sent) else forward(sent)


def is_locked(world: World, sent: Sent) -> bool:
    """Whether the tenant's row is locked."""
    try:
        world.rows("select 1 from edge_rate_limits where key like %s for update nowait", f"replay:{company_of(sent)}:%")
    except psycopg.errors.LockNotAvailable:
        return True
    return False


def forgets_older(seconds: int) -> Callable[[World, Fields], object]:
    """A window that is shorter than promised."""
    window = f"now() - interval '{seconds} s'"
    kept = f"array(select h from unnest(hits) h where h > {window})"
    forget = f"update edge_rate_limits set hits = {kept} where key like %s and hits[1] < {window}"
    return lambda world, fields: world.rows(forget, f"replay:{str(fields['company_id']).lower()}:%")


def ages_slowly(world: World, fields: Fields) -> object:
    """A window that is longer than promised by a second or two."""
    later = "array(select h + interval '1.5 s' from unnest(hits) h order by 1)"
    company = str(fields["company_id"]).lower()
    return world.rows(f"update edge_rate_limits set hits = {later} where key like %s", f"replay:{company}:%")


def touches_letters(world: World, fields: Fields, reply: Reply) -> None:
    """The service does the work before the limit refuses the request."""
    if reply.status == 429:
        touch = "update dead_letter_queue set retry_count = retry_count where company_id = %s"
        world.rows(touch, str(fields["company_id"]).lower())


def on(wanted: Callable[[Reply], bool], statement: str) -> Make:
    """A statement on the row of the limit runs after each replay that is answered like this."""

    def act(world: World, sent: Sent, reply: Reply) -> None:
        if sent.is_replay and wanted(reply) and company_of(sent):
            world.rows(statement, f"replay:{company_of(sent)}:{ADDRESS}")

    return after(act)


def saying(*codes: str) -> Callable[[Reply], bool]:
    """Answers with one of these codes."""
    return lambda reply: json_of(reply).get("code") in codes


def retry_after(change: Callable[[str], str]) -> Make:
    """A refusal by the limit has another Retry-After; empty: none."""

    def changed(reply: Reply) -> Reply:
        said = change(reply.header("Retry-After") or "")
        return reply.having("Retry-After", said) if said else reply.without("Retry-After")

    return whenever(429, changed)


def counts_by(key_of: Callable[[Sent], object]) -> Make:
    """The limit lives in the memory of the process, by some key; the table is not looked at."""

    def make(world: World) -> Defect:
        count: Counter[object] = Counter()

        def defect(sent: Sent, forward: Forward) -> Reply:
            if not sent.is_replay:
                return forward(sent)
            world.forget(company_of(sent))
            reply = forward(sent)
            world.forget(company_of(sent))
            count[key_of(sent)] += reply.status == 200
            return limited() if reply.status == 200 and count[key_of(sent)] > ALLOWED else reply

        return defect

    return make


def limits_too(wanted: Callable[[Sent], bool]) -> Make:
    """Requests of this kind are limited, too: three for each path and tenant."""

    def make(_world: World) -> Defect:
        count: Counter[object] = Counter()

        def defect(sent: Sent, forward: Forward) -> Reply:
            if wanted(sent):
                count[sent.path, company_of(sent)] += 1
            return limited() if wanted(sent) and count[sent.path, company_of(sent)] > ALLOWED else forward(sent)

        return defect

    return make


COUNT = (
    "insert into edge_rate_limits (key, hits) values (%s, array[clock_timestamp()])"
    " on conflict (key) do update set hits = edge_rate_limits.hits || clock_timestamp()"
)
TAKE_BACK = "update edge_rate_limits set hits = hits[1:cardinality(hits) - 1] where key = %s"
LATER = ("feature_disabled", "agents_paused", "budget_exhausted", "idempotency_key_reused")

for _name, _breaks, _make, _checks in (
    (
        "rate-limit/refused-count",
        "A refused request counts, too: whoever asks again never gets in.",
        on(saying("rate_limited"), COUNT),
        ("refusal-changes-nothing",),
    ),
    (
        "rate-limit/later-refusals-free",
        "A request that a later step refuses is not counted: the paused and the poor ask without limit.",
        on(saying(*LATER), TAKE_BACK),
        ("later-refusals-count", "exhausted-budget-counts"),
    ),
    (
        "rate-limit/flag-refusals-free",
        "The count is in the transaction of the replay: what is refused by its flag is rolled back with it.",
        on(saying("feature_disabled"), TAKE_BACK),
        ("later-refusals-count",),
    ),
    (
        "rate-limit/duplicates-free",
        "Duplicates do not count.",
        on(lambda reply: json_of(reply).get("duplicate") is True, TAKE_BACK),
        ("duplicates-count",),
    ),
    (
        "rate-limit/counted-before-authentication",
        "Requests count before they are authenticated: strangers lock a tenant out.",
        on(saying("unauthenticated"), COUNT),
        ("unsigned-do-not-count", "forged-do-not-count"),
    ),
    (
        "rate-limit/counted-before-validation",
        "Requests count before they are validated.",
        on(saying("invalid_request", "batch_too_large"), COUNT),
        ("invalid-do-not-count",),
    ),
    (
        "rate-limit/counted-before-authorisation",
        "Requests count before they are authorised: an admin of one company locks out another.",
        on(saying("forbidden"), COUNT),
        ("forbidden-do-not-count",),
    ),
    (
        "rate-limit/window-of-a-minute",
        "The window is one minute instead of five.",
        before_replays(forgets_older(60)),
        ("window-closed-until-300-s",),
    ),
    (
        "rate-limit-store/kept-in-memory",
        "The limit is kept in the memory of the process: every instance and every restart has its own.",
        counts_by(company_of),
        ("row-as-documented", "row-is-the-limit", "deleting-the-row-resets"),
    ),
    (
        "rate-limit-store/kept-by-each-process",
        "Each process counts in its memory, and a connection stays with its process: another one has three calls more.",
        counts_by(lambda sent: (company_of(sent), get_ident())),
        ("fourth-refused",),
    ),
    (
        "rate-limit-store/spelling-kept",
        "The limit keeps the case in which a company was sent: every spelling has a limit of its own.",
        forgets_when(lambda sent: str(fields_of(sent).get("company_id")) != company_of(sent)),
        ("spelling-of-the-company",),
    ),
    (
        "rate-limit-store/tokens-free",
        "Calls with a token are not counted: who has one and a signature has no limit.",
        forgets_when(lambda sent: bool(sent.header("Authorization"))),
        ("credentials-share",),
    ),
    (
        "rate-limit-store/events-limited",
        "Events are limited, too: a tenant cannot send more than three in five minutes.",
        limits_too(lambda sent: sent.path == "/events"),
        ("events-not-limited",),
    ),
    (
        "rate-limit-store/reads-limited",
        "Reads of a run are limited, too.",
        limits_too(lambda sent: sent.path.startswith("/dlq-replay/")),
        ("reads-not-limited",),
    ),
    ("rate-limit-store/no-retry-after", "A 429 has no Retry-After.", retry_after(lambda _said: ""), ("retry-after",)),
    (
        "rate-limit-store/retry-after-in-milliseconds",
        "Retry-After is in milliseconds.",
        retry_after(lambda said: f"{said}000"),
        ("retry-after",),
    ),
    (
        "rate-limit-store/retry-after-is-a-date",
        "Retry-After is a date.",
        retry_after(lambda _said: "Wed, 21 Oct 2099 07:28:00 GMT"),
        ("retry-after",),
    ),
    (
        "rate-limit-store/retry-after-too-early",
        "Retry-After says one second, whatever the wait: clients come back in a loop.",
        retry_after(lambda _said: "1"),
        ("retry-after-is-true",),
    ),
    (
        "rate-limit-store/retry-after-rounded-down",
        "Retry-After is rounded down: whoever obeys it is refused again.",
        retry_after(lambda said: str(int(said) - 1)),
        ("retry-after-is-true",),
    ),
    (
        "rate-limit-store/retry-after-constant",
        "Retry-After says 300 s, whatever is left.",
        retry_after(lambda _said: "300"),
        ("retry-after-is-true",),
    ),
):
    proxy(_name, _make, tuple(f"{LIMIT}/{check}" for check in _checks), _breaks)
proxy(
    "rate-limit/dry-runs-free",
    on(lambda reply: json_of(reply).get("dry_run") is True, "delete from edge_rate_limits where key = %s"),
    (f"{LIMIT}/dry-runs-count", "drill/dry-run/one-limited-call", "drill/proof/fourth-call-refused"),
    "Dry runs do not count.",
    decision="rollback",
)
proxy(
    "rate-limit/forced-calls-are-free",
    forgets_when(lambda sent: fields_of(sent).get("force") is True),
    (f"{LIMIT}/forced-calls-count",),
    green=(f"{LIMIT}/dry-runs-count",),
)
proxy(
    "rate-limit/there-is-no-limit",
    forgets_when(lambda _sent: True),
    (
        *(f"{LIMIT}/{name}" for name in ("fourth-refused", "retry-after", "spelling-of-the-company")),
        *(f"{LIMIT}/{name}" for name in ("credentials-share", "dry-runs-count", "duplicates-count")),
        *(f"{LIMIT}/{name}" for name in ("window-closed-until-300-s", "row-is-the-limit", "refused-call-does-nothing")),
    ),
)
for _header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP"):
    proxy(
        f"rate-limit/{_header.lower()}-makes-a-call-free",
        forgets_when(lambda sent, header=_header: bool(sent.header(header))),  # type: ignore[misc]
        (f"{LIMIT}/spoofed-{_header.lower()}",),
    )
proxy(
    "rate-limit/the-header-of-a-platform-makes-a-call-free",
    forgets_when(lambda sent: bool(sent.header("Fly-Client-IP"))),
    (f"{LIMIT}/spoofed-x-client-ip",),
)
proxy(
    "rate-limit/the-limit-comes-first",
    instead(lambda world, sent: is_used_up(world, company_of(sent)), limited),
    (f"{LIMIT}/forged-wins-over-limit", f"{LIMIT}/invalid-wins-over-limit"),
)
proxy(
    "rate-limit/the-window-is-297-s",
    before_replays(forgets_older(297)),
    (f"{LIMIT}/window-closed-until-300-s",),
    green=(f"{LIMIT}/window-open-after-300-s",),
)
proxy("rate-limit/the-window-is-302-s", before_replays(ages_slowly), (f"{LIMIT}/window-open-after-300-s",))
proxy(
    "rate-limit/the-work-comes-before-the-limit",
    after_replays(touches_letters),
    (f"{LIMIT}/refused-call-does-nothing",),
)
proxy("rate-limit/a-locked-store-lets-pass", instead(is_locked, passed), (f"{LIMIT}/locked-store-fails-closed",))
