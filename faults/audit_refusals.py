"""Faults of how refusals are noted."""

import asyncio
import dataclasses
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import ClassVar

from faults.altered import instead_of
from faults.audit import AUDIT, PAUSED, Notes, paused_rows
from faults.catalogue import service
from faults.probe import Probe
from replay_service.audit import ONCE_A_MINUTE, RefusalLog, RefusalNote
from replay_service.composition import build_parts
from replay_service.database import Connection, run
from replay_service.exchange import Call, Reply
from replay_service.parts import Parts
from replay_service.replay import replay
from replay_service.settings import Settings

CROWD = 3


@service(
    lambda p: paused_rows(p) == 0, (f"{AUDIT}/refusal-agents-paused", f"{AUDIT}/refusal-feature-disabled"), "refusal"
)
def refusals_of_a_second_in_one_row(settings: Settings) -> Parts:
    """Refusals with one code within a second are merged into one row: the second has none of its own."""
    release = build_parts(settings)

    class Gathering(RefusalLog):
        async def note(self, _conn: Connection, note: RefusalNote) -> None:
            self._count(note)

    return dataclasses.replace(release, refusals=Gathering(release.database))


@service(lambda p: _forbidden_of_own(p) == 0, f"{AUDIT}/refusal-forbidden", "own company")
def forbidden_under_all(settings: Settings) -> Parts:
    """A 403 of a company's admin is audited under `all`: the company never sees it."""
    release = build_parts(settings)

    class Lumping(RefusalLog):
        async def note(self, conn: Connection, note: RefusalNote) -> None:
            await super().note(conn, dataclasses.replace(note, scope="all") if note.code == "forbidden" else note)

    return dataclasses.replace(release, refusals=Lumping(release.database))


@service(lambda p: _rows_of_asked(p, "super_admin") > 0, f"{AUDIT}/refusal-forbidden", "does not exist")
@instead_of("replay")
async def super_admins_under_nobody(parts: Parts, call: Call) -> Reply:
    """A super_admin who asks for a company that does not exist is audited under that company, not under `all`."""
    return await _under_the_asked(parts, call, "super_admin")


@service(lambda p: _rows_of_asked(p, "company_admin") > 0, f"{AUDIT}/refusal-forbidden", "stranger")
@instead_of("replay")
async def admins_of_nobody_under_the_victim(parts: Parts, call: Call) -> Reply:
    """A 403 of an admin whose token names no company is audited under the company that it asked for."""
    return await _under_the_asked(parts, call, "company_admin")


async def _under_the_asked(parts: Parts, call: Call, role: str) -> Reply:
    """A replay whose refusal is audited under the company that is asked for, where who asks has this role and none."""
    caller = await parts.authenticate(parts, call.headers, call.body)
    is_one = caller.claims is not None and caller.claims.role == role and caller.scope == "all"

    def moved(note: RefusalNote) -> RefusalNote:
        is_moved = is_one and note.code == "forbidden"
        return dataclasses.replace(note, scope=json.loads(call.body)["company_id"]) if is_moved else note

    return await replay(dataclasses.replace(parts, refusals=Notes(parts, moved)), call)


def _rows_of_asked(probe: Probe, role: str) -> int:
    nobody = str(uuid.uuid4())
    probe.send(json.dumps({"company_id": nobody}).encode(), probe.as_token(probe.token({"role": role})))
    return int(probe.value("SELECT count(*) FROM audit_logs WHERE scope = %s", nobody))


@service(lambda p: not _forbidden_as_answered(p), f"{AUDIT}/refusal-forbidden", "request id")
def forbidden_under_another_id(settings: Settings) -> Parts:
    """A 403 is audited with a request id that no answer had."""
    release = build_parts(settings)

    class Renaming(RefusalLog):
        async def note(self, conn: Connection, note: RefusalNote) -> None:
            other = dataclasses.replace(note, request_id=release.new_id())
            await super().note(conn, other if note.code == "forbidden" else note)

    return dataclasses.replace(release, refusals=Renaming(release.database))


def _forbidden_as_answered(probe: Probe) -> bool:
    with probe.tenant() as company, probe.tenant() as own:
        token = probe.as_token(probe.token({"role": "company_admin", "company_id": own}))
        answer = probe.send(json.dumps({"company_id": company}).encode(), token)
        row = "SELECT request_id FROM audit_logs WHERE scope = %s AND action = 'dlq_replay_refused'"
        return bool(probe.value(row, own) == answer.headers["X-Request-Id"])


def _forbidden_of_own(probe: Probe) -> int:
    with probe.tenant() as company, probe.tenant() as own:
        token = probe.token({"role": "company_admin", "company_id": own})
        probe.send(json.dumps({"company_id": company}).encode(), probe.as_token(token))
        rows = "SELECT count(*) FROM audit_logs WHERE scope = %s AND action = 'dlq_replay_refused'"
        return int(probe.value(rows, own))


@service(lambda p: _codes_of_a_minute(p) == 1, f"{AUDIT}/refusal-forbidden", "another code")
def one_code_of_a_minute(settings: Settings) -> Parts:
    """Within a minute only the first refusal code of a tenant is audited."""
    release = build_parts(settings)

    class Forgetting(RefusalLog):
        noted: ClassVar[dict[str, str]] = {}

        async def note(self, conn: Connection, note: RefusalNote) -> None:
            if note.code not in ONCE_A_MINUTE or self.noted.setdefault(note.scope, note.code) == note.code:
                await super().note(conn, note)

    return dataclasses.replace(release, refusals=Forgetting(release.database))


def _codes_of_a_minute(probe: Probe) -> int:
    codes = """SELECT count(DISTINCT metadata ->> 'code') FROM audit_logs
        WHERE scope = %s AND action = 'dlq_replay_refused'"""
    with probe.tenant() as company, probe.tenant() as own:
        token = probe.token({"role": "company_admin", "company_id": own})
        probe.send(json.dumps({"company_id": company}).encode(), probe.as_token(token))
        for _ in range(4):
            probe.replay(own, dry_run=True)
        probe.within(2, lambda: int(probe.value(codes, own)) > 1)
        return int(probe.value(codes, own))


@service(lambda p: _on_record(p) > BURST, f"{AUDIT}/burst-is-counted", "refusals")
def counts_go_on(settings: Settings) -> Parts:
    """The count of a burst of refusals is added again every second: it grows by itself."""
    release = build_parts(settings)

    class Repeating(RefusalLog):
        async def flush(self) -> None:
            kept = dict(self._counted)
            await super().flush()
            self._counted = kept

    return dataclasses.replace(release, refusals=Repeating(release.database))


@service(lambda p: _on_record(p) < BURST, f"{AUDIT}/burst-is-counted", "refusals")
def counts_are_forgotten(settings: Settings) -> Parts:
    """Of a burst of refusals only the first is audited: the others of its minute are not counted."""
    release = build_parts(settings)

    class Forgetting(RefusalLog):
        def _count(self, note: RefusalNote) -> None:
            pass

    return dataclasses.replace(release, refusals=Forgetting(release.database))


BURST = 4


def _on_record(probe: Probe) -> int:
    """How many refusals of a burst are in the trail or wait for the end of their minute, after some seconds."""
    known = """
    SELECT coalesce((SELECT sum((metadata ->> 'count')::int) FROM audit_logs
                     WHERE scope = %s AND action = 'dlq_replay_refused'), 0)
      + coalesce((SELECT sum(pending) FROM refusal_counts WHERE scope = %s), 0)
    """
    with probe.tenant() as company:
        for _ in range(3 + BURST):
            probe.replay(company, dry_run=True)
        probe.within(3, lambda: False)
        return int(probe.value(known, company, company))


@service(
    lambda p: not _recorded_as_answered(p),
    tuple(
        f"{AUDIT}/refusal-{name}" for name in ("agents-paused", "budget-exhausted", "feature-disabled", "key-reused")
    ),
    "request ids",
)
def refusals_under_another_request_id(settings: Settings) -> Parts:
    """A refusal is audited with a request id that no answer has."""
    release = build_parts(settings)

    class Renaming(RefusalLog):
        async def note(self, conn: Connection, note: RefusalNote) -> None:
            await super().note(conn, dataclasses.replace(note, request_id=release.new_id()))

    return dataclasses.replace(release, refusals=Renaming(release.database))


def _recorded_as_answered(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.rows(PAUSED, company)
        request_id = probe.replay(company).headers["X-Request-Id"]
        noted = "SELECT request_id FROM audit_logs WHERE scope = %s AND action = 'dlq_replay_refused'"
        return bool(probe.value(noted, company) == request_id)


@service(lambda p: _audited_as_another(p), "drill/observability/request-id-in-the-trail", ("at once", "request id"))
def request_id_of_the_last(settings: Settings) -> Parts:
    """The request id is a global variable: concurrent requests are audited with the id of the last one."""
    release = build_parts(settings)
    current = {"id": ""}

    async def twin(parts: Parts, call: Call) -> Reply:
        current["id"] = call.request_id
        await asyncio.sleep(0.05)
        return await release.replay(parts, dataclasses.replace(call, request_id=current["id"]))

    return dataclasses.replace(release, replay=twin)


def _audited_as_another(probe: Probe) -> bool:
    with ExitStack() as held, ThreadPoolExecutor(max_workers=4) as pool:
        companies = [held.enter_context(probe.tenant()) for _ in range(4)]
        answers = list(pool.map(lambda one: probe.replay(one, dry_run=True), companies))
        noted = [probe.value("SELECT request_id FROM audit_logs WHERE scope = %s", one) for one in companies]
        return noted != [answer.headers["X-Request-Id"] for answer in answers]


@service(lambda p: _rows_of_a_crowd(p) < CROWD, f"{AUDIT}/refusal-feature-disabled", "feature_disabled")
def refusals_at_once_are_lost(settings: Settings) -> Parts:
    """Of simultaneous refusals only one is audited: a request that finds the trail locked writes nothing."""
    release = build_parts(settings)
    busy: set[str] = set()

    class Hurried(RefusalLog):
        async def note(self, conn: Connection, note: RefusalNote) -> None:
            if note.scope in busy:
                return
            busy.add(note.scope)
            try:
                await super().note(conn, note)
                await asyncio.sleep(0.05)  # so long a commit may take
            finally:
                busy.discard(note.scope)

    return dataclasses.replace(release, refusals=Hurried(release.database))


def _rows_of_a_crowd(probe: Probe) -> int:
    """The audit rows of this many concurrent replays of a tenant whose replays are switched off."""
    with probe.tenant() as company, ThreadPoolExecutor(CROWD) as pool:
        probe.switch_off(company, "dlq.replay.enabled")
        list(pool.map(lambda _: probe.replay(company), range(CROWD)))
        return int(probe.value("SELECT count(*) FROM audit_logs WHERE scope = %s", company))


@service(lambda p: _limited_at_once(p) > 1, f"{AUDIT}/rate-limited-once-a-minute", "audit rows")
def first_refusals_at_once(settings: Settings) -> Parts:
    """The first refusals of a minute leave a row each where they come at once: each looks for one before it writes."""
    release = build_parts(settings)
    find = b"""SELECT count(*) FROM public.audit_logs WHERE scope = %(scope)s AND metadata ->> 'code' = %(code)s
        AND created_at >= date_trunc('minute', now())"""

    class Looking(RefusalLog):
        async def note(self, conn: Connection, note: RefusalNote) -> None:
            if note.code not in ONCE_A_MINUTE:
                await super().note(conn, note)
                return
            (found,) = await (await conn.execute(find, {"scope": note.scope, "code": note.code})).fetchone() or (0,)
            await asyncio.sleep(0.02)
            if not found:
                told = json.dumps({**note.metadata, "count": 1})
                said = {"scope": note.scope, "code": note.code, "actor": note.actor, "request_id": note.request_id}
                await run(conn, "record_refusal", **said, refused=1, metadata=told, once_a_minute=False)

    return dataclasses.replace(release, refusals=Looking(release.database))


def _limited_at_once(probe: Probe) -> int:
    with probe.tenant() as company, ThreadPoolExecutor(8) as crowd:
        for _ in range(3):
            probe.replay(company, dry_run=True)
        [*crowd.map(lambda _: probe.replay(company, dry_run=True), range(8))]
        return int(probe.value("SELECT count(*) FROM audit_logs WHERE scope = %s AND action LIKE '%%refused'", company))
