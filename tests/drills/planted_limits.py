"""Planted defects of the rate limit."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg

from tests.drills.defects import (
    World,
    after_replays,
    before_replays,
    company_of,
    fields_of,
    problem,
    whenever,
    with_json,
)
from tests.drills.planted import Planted
from tests.drills.proxy import Defect, Forward, Reply, Sent

LIMIT = "drill/rate-limit"
ADDRESS = "127.0.0.1"
FULL = "array[now() - interval '3 s', now() - interval '2 s', now()]"


def limited(**headers: str) -> Reply:
    """A refusal by the rate limit."""
    reply = problem(429, "rate_limited")
    for name, value in {"Retry-After": "100", **headers}.items():
        reply = reply.having(name, value)
    return reply


def charge(world: World, company: str, address: str = ADDRESS) -> None:
    """Use up a tenant's limit."""
    world.sql(
        f"insert into public.edge_rate_limits (key, hits) values (%s, {FULL})"
        " on conflict (key) do update set hits = excluded.hits",
        f"replay:{company}:{address}",
    )


def used_up(world: World, company: str) -> bool:
    """Whether the tenant's limit is used up, whatever the address."""
    return bool(
        world.sql(
            "select 1 from public.edge_rate_limits where key like %s and cardinality(hits) >= 3", f"replay:{company}:%"
        )
    )


def forgets_when(wanted: Callable[[Sent], bool]) -> Callable[[World], Defect]:
    """Requests of this kind have a bucket of their own."""

    def make(world: World) -> Defect:
        def defect(sent: Sent, forward: Forward) -> Reply:
            if sent.is_replay and wanted(sent):
                world.forget(company_of(sent))
            return forward(sent)

        return defect

    return make


def counts_by(key_of: Callable[[Sent], object], most: int = 3) -> Callable[[World], Defect]:
    """The limit lives in the memory of the process, by some key; the table is not looked at."""

    def make(world: World) -> Defect:
        count: Counter[object] = Counter()

        def defect(sent: Sent, forward: Forward) -> Reply:
            if not sent.is_replay:
                return forward(sent)
            world.forget(company_of(sent))
            reply = forward(sent)
            if reply.status != 200:
                return reply
            count[key_of(sent)] += 1
            return limited() if count[key_of(sent)] > most else reply

        return defect

    return make


def one_for_all(_world: World) -> Defect:
    """The limit is kept for the address alone: once it is used up it is for every tenant."""
    used = threading.Event()

    def defect(sent: Sent, forward: Forward) -> Reply:
        if sent.is_replay and used.is_set():
            return limited()
        reply = forward(sent)
        if reply.status == 429:
            used.set()
        return reply

    return defect


def charges_refused(world: World) -> Defect:
    """Refused requests use up the limit of the tenant that they name."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        if sent.is_replay and reply.status in {400, 401, 403}:
            charge(world, company_of(sent))
        return reply

    return defect


LATER = (b"agents_paused", b"feature_disabled", b"budget_exhausted")


def takes_back(world: World) -> Defect:
    """What a later step refuses is not counted."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        if sent.is_replay and any(code in reply.body for code in LATER):
            world.sql(
                "update public.edge_rate_limits set hits = hits[1:cardinality(hits) - 1] where key like %s",
                f"replay:{company_of(sent)}:%",
            )
        return reply

    return defect


def limits_before_all(world: World) -> Defect:
    """The limit is looked at before anything else."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        return limited() if sent.is_replay and used_up(world, company_of(sent)) else forward(sent)

    return defect


def limits_everything(world: World) -> Defect:
    """Reads and events share the limit of replays: used up once, everything is refused."""
    used = threading.Event()

    def defect(sent: Sent, forward: Forward) -> Reply:
        if used.is_set() and (sent.path.startswith("/dlq-replay/") or sent.path == "/events"):
            return limited()
        reply = forward(sent)
        if reply.status == 429:
            used.set()
        return reply

    return defect


def keyed_on_tenant(world: World) -> Defect:
    """One bucket for all addresses of a tenant."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        shared = sent.is_replay and reply.status == 200 and used_up(world, company_of(sent))
        others = len(
            world.sql("select 1 from public.edge_rate_limits where key like %s", f"replay:{company_of(sent)}:%")
        )
        return limited() if shared and others > 1 else reply

    return defect


def believes_forwarded(world: World) -> Defect:
    """The first address of X-Forwarded-For is charged."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        named = (sent.header("X-Forwarded-For") or "").partition(",")[0].strip()
        if sent.is_replay and named and reply.status == 200:
            charge(world, company_of(sent), named)
        return reply

    return defect


def shift(seconds: str) -> Callable[[World, dict[str, Any]], object]:
    """Move a tenant's hits before each replay: the window is longer than promised."""

    def action(world: World, fields: dict[str, Any]) -> object:
        return world.sql(
            f"update public.edge_rate_limits set hits = array(select h + interval '{seconds}'"
            " from unnest(hits) h order by 1)"
            " where key like %s",
            f"replay:{str(fields['company_id']).lower()}:%",
        )

    return action


def drop_older(seconds: str, *, whole: bool) -> Callable[[World, dict[str, Any]], object]:
    """Forget old hits before each replay: a shorter window, or (whole) a fixed one."""

    def action(world: World, fields: dict[str, Any]) -> object:
        kept = (
            "'{}'::timestamptz[]"
            if whole
            else f"array(select h from unnest(hits) h where h > now() - interval '{seconds}')"
        )
        return world.sql(
            f"update public.edge_rate_limits set hits = {kept} where key like %s and hits[1] <"
            f" now() - interval '{seconds}'",
            f"replay:{str(fields['company_id']).lower()}:%",
        )

    return action


def on_refusal(statement: str) -> Callable[[World], Defect]:
    """A statement with the tenant's id runs whenever the limit refuses."""

    def action(world: World, fields: dict[str, Any], reply: Reply) -> None:
        if reply.status == 429:
            world.sql(statement, str(fields["company_id"]).lower())

    return after_replays(action)


def rename_row(world: World, fields: dict[str, Any], _reply: Reply) -> None:
    """The key of the row is not the documented one."""
    company = str(fields["company_id"]).lower()
    world.sql("update public.edge_rate_limits set hits = hits || now() where key like %s", f"replay:{company}:%")


def opens_when_locked(world: World) -> Defect:
    """A store that does not answer at once lets everything pass."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        if sent.is_replay:
            try:
                world.sql(
                    "select 1 from public.edge_rate_limits where key like %s for update nowait",
                    f"replay:{company_of(sent)}:%",
                )
            except psycopg.errors.LockNotAvailable:
                return with_json(problem(200, ""), status="completed")
        return forward(sent)

    return defect


def lets_pass_without_store(world: World) -> Defect:
    """A store that is gone lets everything pass."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        return with_json(problem(200, ""), status="completed") if sent.is_replay and reply.status == 503 else reply

    return defect


SPOOFED = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP")
SPOOF_CHECKS = ("x-forwarded-for", "forwarded", "x-real-ip", "true-client-ip", "cf-connecting-ip", "x-client-ip")

LIMITS = [
    Planted(
        "forced calls are free",
        forgets_when(lambda sent: fields_of(sent).get("force") is True),
        (f"{LIMIT}/forced-calls-count",),
        (f"{LIMIT}/dry-runs-count",),
    ),
    Planted(
        "there is no limit",
        forgets_when(lambda _sent: True),
        tuple(
            f"{LIMIT}/{name}"
            for name in (
                *("fourth-refused", "retry-after", "spelling-of-the-company", "credentials-share", "dry-runs-count"),
                *("duplicates-count", "window-closed-until-300-s", "row-is-the-limit", "refused-call-does-nothing"),
            )
        ),
    ),
    Planted("one limit for all tenants", one_for_all, (f"{LIMIT}/tenants-independent",)),
    Planted(
        "the limit of a new tenant is used up",
        lambda _world: lambda sent, forward: limited() if sent.is_replay else forward(sent),
        (f"{LIMIT}/tenants-independent",),
    ),
    Planted(
        "two calls are allowed",
        counts_by(company_of, 2),
        (f"{LIMIT}/three-admitted", "drill/proof/fourth-call-refused"),
    ),
    Planted(
        "the count lives in memory",
        counts_by(company_of),
        (f"{LIMIT}/deleting-the-row-resets", f"{LIMIT}/window-open-after-300-s", f"{LIMIT}/row-is-the-limit"),
        (f"{LIMIT}/fourth-refused",),
    ),
    Planted(
        "many at once pass",
        lambda _world: (
            lambda sent, forward: (
                with_json(problem(200, ""), status="completed") if fields_of(sent).get("dry_run") else forward(sent)
            )
        ),
        (f"{LIMIT}/concurrent-exactly-three",),
    ),
    *(
        Planted(
            f"{header} is believed",
            forgets_when(lambda sent, header=header: bool(sent.header(header))),  # type: ignore[misc]
            (f"{LIMIT}/spoofed-{name}",),
        )
        for header, name in zip(SPOOFED, SPOOF_CHECKS, strict=True)
    ),
    Planted(
        "the address that is named is charged",
        believes_forwarded,
        (f"{LIMIT}/spoofed-address-not-charged",),
    ),
    Planted(
        "a victim's address can be charged",
        before_replays(
            lambda w, f: charge(w, str(f["company_id"]), "127.0.0.2") if used_up(w, str(f["company_id"])) else None
        ),
        (f"{LIMIT}/victim-not-locked-out",),
    ),
    Planted(
        "refused requests count",
        charges_refused,
        (
            f"{LIMIT}/forged-do-not-count",
            f"{LIMIT}/unsigned-do-not-count",
            f"{LIMIT}/invalid-do-not-count",
            f"{LIMIT}/forbidden-do-not-count",
        ),
    ),
    Planted(
        "what is refused later does not count",
        takes_back,
        (f"{LIMIT}/later-refusals-count", f"{LIMIT}/exhausted-budget-counts"),
        (f"{LIMIT}/fourth-refused",),
    ),
    Planted("everything is limited", limits_everything, (f"{LIMIT}/reads-not-limited", f"{LIMIT}/events-not-limited")),
    Planted(
        "the limit comes first",
        limits_before_all,
        (f"{LIMIT}/forged-wins-over-limit", f"{LIMIT}/invalid-wins-over-limit"),
    ),
    Planted("addresses share a bucket", keyed_on_tenant, (f"{LIMIT}/sources-independent",)),
    Planted(
        "the window is 200 s",
        before_replays(drop_older("200 s", whole=False)),
        (f"{LIMIT}/window-closed-until-300-s",),
        (f"{LIMIT}/window-open-after-300-s",),
    ),
    Planted(
        "the window is 297 s",
        before_replays(drop_older("297 s", whole=False)),
        (f"{LIMIT}/window-closed-until-300-s",),
        (f"{LIMIT}/window-open-after-300-s",),
    ),
    Planted(
        "the window is 302 s",
        before_replays(shift("1.5 s")),
        (f"{LIMIT}/window-open-after-300-s",),
    ),
    Planted("the window is fixed", before_replays(drop_older("300 s", whole=True)), (f"{LIMIT}/window-rolls",)),
    Planted(
        "the window is too long",
        before_replays(shift("60 s")),
        (f"{LIMIT}/window-open-after-300-s", f"{LIMIT}/window-rolls"),
    ),
    Planted(
        "a refusal counts",
        on_refusal(
            "update public.edge_rate_limits set hits = hits[2:3] || now() where key like 'replay:' || %s || ':%%'"
        ),
        (f"{LIMIT}/refusal-changes-nothing",),
    ),
    Planted("the row counts twice", after_replays(rename_row), (f"{LIMIT}/row-as-documented",)),
    Planted(
        "the work is done before the limit is looked at",
        on_refusal("update public.dead_letter_queue set retry_count = retry_count where company_id = %s"),
        (f"{LIMIT}/refused-call-does-nothing",),
    ),
    Planted(
        "every refusal is audited",
        on_refusal(
            "insert into public.audit_logs (action, scope, metadata)"
            " values ('dlq_replay_refused', %s, '{\"code\": \"rate_limited\"}')"
        ),
        (f"{LIMIT}/refusals-audited-once-a-minute",),
    ),
    Planted("a missing store lets pass", lets_pass_without_store, (f"{LIMIT}/missing-store-fails-closed",)),
    Planted(
        "a locked store lets pass",
        opens_when_locked,
        (f"{LIMIT}/locked-store-fails-closed", f"{LIMIT}/uncounted-is-not-admitted"),
    ),
    Planted(
        "Retry-After is missing", whenever(429, lambda reply: reply.without("Retry-After")), (f"{LIMIT}/retry-after",)
    ),
    Planted(
        "Retry-After is a guess",
        whenever(429, lambda reply: reply.having("Retry-After", "1")),
        (f"{LIMIT}/retry-after-is-true",),
        (f"{LIMIT}/retry-after",),
    ),
]
