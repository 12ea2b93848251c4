"""Faults of the switches: pauses and feature flags that are not asked, asked too late, or asked of somebody else."""

import dataclasses
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from faults.altered import Change, altered, around, instead_of
from faults.catalogue import service, statement
from faults.probe import Probe
from faults.requests import REQUEST, is_forced, remembering
from faults.trigger.planting import released
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Caller
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.tenants import ReplayFlags

T = TypeVar("T")
_OFF = "INSERT INTO feature_flags (key, company_id, enabled) VALUES (%s, %s, false)"
REPLAY, OUTBOX = "dlq.replay.enabled", "outbox.enabled"


def _paused(probe: Probe, **fields: Any) -> int:
    with probe.tenant() as company:
        probe.pause(company)
        return probe.replay(company, **fields).status_code


def _off(probe: Probe, key: str, **fields: Any) -> int:
    with probe.tenant() as company:
        probe.rows(_OFF, key, company)
        return probe.replay(company, **fields).status_code


@service(lambda p: _again_while_paused(p) == 409, "drill/idempotency/duplicate-while-refused", ("409", "paused"))
@around("read_flags")
async def pause_before_the_key(release: Parts, conn: Connection, company_id: str) -> ReplayFlags:
    """The pause is checked before the key: the duplicate of a finished request is refused."""
    flags = await release.read_flags(conn, company_id)
    if await release.is_paused(conn, company_id):
        raise Refusal("agents_paused", "The agents of this company are paused.")
    return flags


def _again_while_paused(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.letters(company, 1)
        probe.replay(company, idempotency_key="k")
        probe.pause(company)
        return probe.replay(company, idempotency_key="k").status_code


@service(lambda p: _stays_unknown(p), "drill/authentication/new-company-is-known-at-once", ("403", "as soon as"))
def unknown_stays_unknown(settings: Settings) -> Parts:
    """A company that was once unknown stays unknown to the service after it is created."""
    release = build_parts(settings)
    unknown: set[str] = set()

    async def twin(conn: Connection, caller: Caller, company_id: str) -> bool:
        known = company_id not in unknown and await release.is_authorised(conn, caller, company_id)
        if not known:
            unknown.add(company_id)
        return known

    return dataclasses.replace(release, is_authorised=twin)


def _stays_unknown(probe: Probe) -> bool:
    """Whether a company that is asked for, and only then comes, is refused."""
    with probe.tenant() as company:
        name = probe.value("DELETE FROM companies WHERE id = %s RETURNING name", company)
        probe.replay(company, dry_run=True)
        probe.rows("INSERT INTO companies (id, name) VALUES (%s, %s)", company, name)
        return probe.replay(company, dry_run=True).status_code == 403


@service(
    lambda p: _paused(p) == 200,
    ("drill/pause/refuses-replay", "drill/safety-rails/force-respects-pause"),
    ("409", "pause"),
)
@instead_of("is_paused")
async def pause_not_asked(_conn: Connection, _company_id: str) -> bool:
    """A pause does not stop replays."""
    return False


@service(
    lambda p: _paused(p, force=True) == 200,
    ("drill/pause/force-does-not-ignore-it", "drill/safety-rails/force-respects-pause"),
    ("409", "pause", "force"),
)
def force_ignores_pause(settings: Settings) -> Parts:
    """`force` ignores a pause."""
    return _pausing(settings, lambda is_paused: is_paused and not is_forced())


@service(
    lambda p: _paused(p, dry_run=True) == 200,
    ("drill/pause/dry-run-refused-too", "drill/dry-run/paused-like-real"),
    ("409", "pause", "dry"),
)
def dry_run_ignores_pause(settings: Settings) -> Parts:
    """A dry run is not refused while a company is paused."""
    return _pausing(settings, lambda is_paused: is_paused and not (REQUEST.get() or _NO).dry_run)


class _NO:
    dry_run = False


def _pausing(settings: Settings, change: Callable[[bool], bool]) -> Parts:
    release = remembering(settings)

    async def twin(conn: Connection, company_id: str) -> bool:
        return change(await release.is_paused(conn, company_id))

    return dataclasses.replace(release, is_paused=twin)


@service(lambda p: _paused(p) == 200, "drill/pause/refuses-replay", ("409", "pause"))
def own_pause_not_asked(settings: Settings) -> Parts:
    """Only the global pause is checked, not the tenant's own."""
    fleet = "EXISTS (SELECT FROM public.agent_controls WHERE company_id IS NULL AND agents_paused)"
    change = ("public.is_company_paused(%(company_id)s::uuid)", f"{fleet} AND %(company_id)s::uuid IS NOT NULL")
    return altered(settings, "is_paused", change)


@service(lambda p: _fleet_paused_with_own_row(p) == 200, "drill/pause/fleet", "own row", production=False)
def own_row_hides_fleet(settings: Settings) -> Parts:
    """A pause row of the tenant hides the global pause."""
    first = """coalesce((SELECT agents_paused FROM public.agent_controls WHERE company_id = %(company_id)s::uuid
        OR company_id IS NULL ORDER BY company_id NULLS LAST LIMIT 1), false)"""
    return altered(settings, "is_paused", ("public.is_company_paused(%(company_id)s::uuid)", first))


def _fleet_paused_with_own_row(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.rows("INSERT INTO agent_controls (company_id, agents_paused) VALUES (%s, false)", company)
        probe.rows("UPDATE agent_controls SET agents_paused = true WHERE company_id IS NULL")
        try:
            return probe.replay(company, dry_run=True).status_code
        finally:
            probe.rows("UPDATE agent_controls SET agents_paused = false WHERE company_id IS NULL")


def _flagging(settings: Settings, **fixed: bool) -> Parts:
    release = build_parts(settings)

    async def twin(conn: Connection, company_id: str) -> ReplayFlags:
        return dataclasses.replace(await release.read_flags(conn, company_id), **fixed)

    return dataclasses.replace(release, read_flags=twin)


@service(
    lambda p: _off(p, REPLAY) == 200,
    ("drill/flags/replay-switch-is-wired", "drill/safety-rails/force-respects-flags"),
    ("403", "flag", REPLAY),
)
def replay_flag_not_asked(settings: Settings) -> Parts:
    """The service does not check dlq.replay.enabled."""
    return _flagging(settings, replay_enabled=True)


@service(
    lambda p: _off(p, REPLAY, dry_run=True) == 200,
    ("drill/dry-run/flag-off-like-real", "drill/flags/service-asks-the-function", "drill/ledger/refused-however-asked"),
    ("403", "flag"),
)
@around("read_flags", of=remembering)
async def dry_run_ignores_the_flag(release: Parts, conn: Connection, company_id: str) -> ReplayFlags:
    """A dry run does not check dlq.replay.enabled."""
    flags = await release.read_flags(conn, company_id)
    return dataclasses.replace(flags, replay_enabled=flags.replay_enabled or (REQUEST.get() or _NO).dry_run)


@service(lambda p: _off(p, OUTBOX) == 200, "drill/flags/outbox-switch-stops-replays", ("403", "flag", OUTBOX))
def outbox_flag_not_asked(settings: Settings) -> Parts:
    """A replay does not check outbox.enabled: its items wait in a queue that is switched off."""
    return _flagging(settings, outbox_enabled=True)


@service(lambda p: _switched_off_between(p) == 200, "drill/flags/budget-switch-is-wired", ("budget_exhausted", "flag"))
def flags_cached(settings: Settings) -> Parts:
    """Flags are cached for a minute: what an operator switches off goes on."""
    release = build_parts(settings)
    return dataclasses.replace(release, read_flags=_kept(release.read_flags))


def _kept(read: Callable[[Connection, str], Awaitable[T]]) -> Callable[[Connection, str], Awaitable[T]]:
    """A lookup whose answer is cached for a minute for each company."""
    known: dict[str, tuple[float, T]] = {}

    async def twin(conn: Connection, company_id: str) -> T:
        if company_id not in known or time.monotonic() > known[company_id][0] + 60:
            known[company_id] = (time.monotonic(), await read(conn, company_id))
        return known[company_id][1]

    return twin


def _switched_off_between(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.replay(company, dry_run=True)
        probe.rows(_OFF, REPLAY, company)
        return probe.replay(company, dry_run=True).status_code


@service(lambda p: _paused_between(p) == 200, "drill/pause/counts-from-the-next-request", ("agents_paused", "pause"))
def pause_cached(settings: Settings) -> Parts:
    """The pause is cached for a minute."""
    release = build_parts(settings)
    return dataclasses.replace(release, is_paused=_kept(release.is_paused))


def _paused_between(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.replay(company, dry_run=True)
        probe.pause(company)
        return probe.replay(company, dry_run=True).status_code


@service(
    lambda p: _off(p, REPLAY, force=True) == 200, "drill/safety-rails/force-respects-flags", ("403", "flag", "force")
)
@around("read_flags", of=remembering)
async def force_ignores_flags(release: Parts, conn: Connection, company_id: str) -> ReplayFlags:
    """`force` ignores the flags."""
    flags = await release.read_flags(conn, company_id)
    return dataclasses.replace(flags, replay_enabled=True, outbox_enabled=True) if is_forced() else flags


_BUCKET = "public.feature_bucket($1, $2)"
_MISSING = "coalesce($1 = 'dlq.replay.budget_control', false)"
_OWN = "f.key = $1 AND f.company_id = $2;"


def _function(*changes: Change) -> str:
    return released("is_feature_enabled", *changes)


def _follows_the_formula(probe: Probe) -> bool:
    """Whether the flag is on for just the companies that the formula says. So many are asked that a few of each of its
    hundred buckets are among them.
    """
    found = probe.rows("""SELECT u::text, is_feature_enabled('outbox.enabled', u)
        FROM (SELECT gen_random_uuid() AS u FROM generate_series(1, 2000)) AS made""")
    return all(is_on == (_bucket(company) < 10) for company, is_on in found)


def _bucket(company: str) -> int:
    digest = hashlib.sha256(f"{OUTBOX}:{company}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100


def _own_row(probe: Probe, ask: str) -> Any:
    with probe.tenant() as company:
        probe.rows(_OFF, OUTBOX, company)
        return probe.value(ask, company)


statement(
    "switches/bucket-by-other-hash",
    "The bucket of a company comes from another hash: other companies are in the canary than was agreed.",
    _function((_BUCKET, "(abs(hashtext($2::text)) % 100)")),
    _function(),
    lambda p: not _follows_the_formula(p),
    ("drill/flags/bucket-formula", "sql/spot/flags-decided-by-formula"),
    names=("bucket", "formula"),
)
statement(
    "switches/bucket-without-key",
    "The rollout bucket does not depend on the flag: the same companies come first in every rollout.",
    _function((_BUCKET, "public.feature_bucket('', $2)")),
    _function(),
    lambda p: not _follows_the_formula(p),
    ("drill/flags/bucket-formula", "sql/spot/flags-decided-by-formula"),
    names=("bucket", "formula"),
)
statement(
    "switches/bucket-random",
    "The bucket is drawn anew for every request.",
    _function((_BUCKET, "(random() * 100)::integer"), ("STABLE PARALLEL SAFE", "VOLATILE")),
    _function(),
    lambda p: not _follows_the_formula(p),
    (
        *("drill/flags/sticky", "drill/flags/monotone", "drill/flags/bucket-formula"),
        "sql/spot/flags-decided-by-formula",
    ),
    names=("bucket", "same", "sticky"),
)
statement(
    "switches/percentage-off-by-one",
    "A rollout of 10 % takes in 11 buckets (<= instead of <).",
    _function((_BUCKET, f"{_BUCKET} - 1")),
    _function(),
    lambda p: not _follows_the_formula(p),
    ("drill/flags/bucket-formula", "sql/spot/flags-decided-by-formula"),
    names=("bucket", "formula"),
)
statement(
    "switches/tenant-row-ignored",
    "A tenant's own flag row is ignored.",
    _function((_OWN, "false;")),
    _function(),
    lambda p: bool(_own_row(p, "SELECT is_feature_enabled('outbox.enabled', %s)")),
    ("drill/flags/tenant-row-wins", "drill/flags/outbox-off-takes-direct-path"),
    names=("tenant", "row"),
)
statement(
    "switches/missing-flag-is-on",
    "A flag without any row is on.",
    _function((_MISSING, "true")),
    _function(),
    lambda p: bool(p.value("SELECT is_feature_enabled('witness.none', gen_random_uuid())")),
    ("drill/flags/missing-row-is-off",),
    names=("without a row",),
)
statement(
    "switches/missing-budget-control-is-off",
    "Without its row the budget control is off: losing a row lifts all budgets.",
    _function((_MISSING, "false")),
    _function(),
    lambda p: (
        not p.value(
            "SELECT strpos(prosrc, 'dlq.replay.budget_control') > 0 FROM pg_proc WHERE proname = 'is_feature_enabled'"
        )
    ),
    ("drill/flags/missing-budget-control-is-on", "sql/manifest/functions"),
    names=("budget_control", "is_feature_enabled"),
    production=False,
)
statement(
    "switches/unknown-company-is-null",
    "A flag without a row is null instead of false.",
    _function((_MISSING, "NULL")),
    _function(),
    lambda p: p.value("SELECT is_feature_enabled('witness.none', gen_random_uuid())") is None,
    ("drill/flags/missing-row-is-off", "sql/spot/flags-decided-by-formula"),
    names=("null", "missing", "None"),
)
