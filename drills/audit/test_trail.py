"""The audit trail as a trail: append-only, chained by hashes, one chain a scope, whoever writes."""

import uuid
from collections.abc import Sequence
from functools import partial

import psycopg
import pytest

from drills.workbench.audit_chain import GENESIS, broken_links, head_of
from drills.workbench.checks import SIGNED, SQL
from drills.workbench.scene import Scene, aside
from gates.checks.recorder import check
from gates.deployment.http.client import NoAnswer
from gates.deployment.sql.database import execute
from gates.deployment.sql.failures import in_words
from gates.evidence import TargetKind, Where

pytestmark = pytest.mark.beside_load

drill = partial(check, needs=SQL, after=SIGNED)


def _row_on_record(scene: Scene) -> tuple[str, int]:
    """A tenant whose dry run is on record: its id and the id of the row, shown to exist."""
    company = scene.company()
    scene.run(company, dry_run=True)
    rows = scene.audited(company)
    scene.seen.require(rows, "the dry run left no audit row: drill/audit/dry-run")
    return company, int(rows[0]["id"])


@drill("drill/audit/update-refused", covers=("I05",))
def test_update_refused(scene: Scene) -> None:
    """The database refuses to change an audit row that is there.

    A trail that can be edited proves nothing.
    """
    _, row = _row_on_record(scene)
    for change in ("actor = 'nobody'", "metadata = '{}'", "hash = prev_hash", "created_at = now()"):
        refused = scene.refused_by_database(f"update public.audit_logs set {change} where id = %s", row)
        assert refused, f"update public.audit_logs set {change} was accepted on a row that exists"
        scene.seen.count()


@drill("drill/audit/delete-refused", covers=("I06",))
def test_delete_refused(scene: Scene) -> None:
    """The database refuses to delete an audit row that is there.

    An attacker deletes the rows that show the attack.
    """
    _, row = _row_on_record(scene)
    assert scene.refused_by_database("delete from public.audit_logs where id = %s", row), "an audit row was deleted"
    assert not _old_row_deleted(scene), "an audit row that is ten years old was deleted"
    scene.seen.require(
        scene.number("select count(*) from public.audit_logs where id = %s", row) == 1, "the row is not there"
    )
    scene.seen.count()


def _old_row_deleted(scene: Scene) -> bool:
    """Whether a row that was written with an old date can be deleted; all is rolled back."""
    scope = scene.company()
    with scene.transaction() as connection:
        try:
            execute(connection, OLD_ROW, scope)
            execute(connection, "delete from public.audit_logs where scope = %s", scope)
        except psycopg.OperationalError:
            raise
        except psycopg.Error:
            return False
        return True


APPEND = """
insert into public.audit_logs (action, actor, scope, metadata) values ('rate_limits_cleared', 'drill', %s, '{}')
"""
OLD_ROW = """
insert into public.audit_logs (action, actor, scope, metadata, created_at)
values ('rate_limits_cleared', 'drill', %s, '{}', now() - interval '10 years')
"""
GUARDS = """
select replace(
    pg_get_triggerdef(t.oid), ' ON ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname) || ' ',
    ' ON pg_temp.audit_logs '
  ) as guard
from pg_trigger t
join pg_class c on c.oid = t.tgrelid
join pg_namespace n on n.oid = c.relnamespace
where t.tgrelid = 'public.audit_logs'::regclass and not t.tgisinternal and t.tgenabled in ('O', 'A')
  and t.tgtype::int & 32 <> 0
order by t.tgname
"""
"""The enabled triggers on TRUNCATE, each for a temporary table of the same name. They fire in the order of names."""
EMPTY = "truncate pg_temp.audit_logs"
TRUNCATE = "truncate public.audit_logs"
"""On the reference alone."""


@drill("drill/audit/truncate-refused", covers=("I07",), where=Where.STAGING)
def test_truncate_refused(scene: Scene) -> None:
    """The database refuses to truncate the audit trail, as it refuses to delete its rows.

    Row triggers do not fire on TRUNCATE: without a trigger of its own, one statement empties the trail.
    """
    guards = [str(row["guard"]) for row in scene.rows(GUARDS)]
    assert guards, "no enabled trigger of public.audit_logs watches TRUNCATE"
    try:
        refused = _guards_refuse(scene, guards)
    except psycopg.errors.InsufficientPrivilege as error:
        scene.seen.control(
            f"{len(guards)} enabled triggers watch TRUNCATE; this login may not try them: {in_words(error)}"
        )
        refused = True
    if not refused and scene.target.kind is TargetKind.REFERENCE:
        assert scene.refused_by_database(TRUNCATE), "the whole audit trail was truncated (and rolled back)"
    scene.seen.require(refused, "a temporary table with the triggers of public.audit_logs can be truncated")
    scene.seen.count(len(guards))


def _guards_refuse(scene: Scene, guards: Sequence[str]) -> bool:
    """Whether a temporary table with these triggers can be truncated. An attempt on the table in use would queue for a
    lock, in front of everybody's writes.
    """
    with scene.transaction() as connection:
        execute(connection, "create temporary table audit_logs (like public.audit_logs) on commit drop")
        execute(connection, EMPTY)
        scene.seen.control("without the triggers a temporary table can be truncated")
        for guard in guards:
            execute(connection, guard)
        try:
            execute(connection, EMPTY)
        except psycopg.OperationalError:
            raise
        except psycopg.Error:
            return True
    return False


def _assert_chain(scene: Scene, scope: str, *, at_least: int) -> None:
    count, wrong = broken_links(scene.db, scope)
    scene.seen.require(count >= at_least, f"the scope has {count} audit rows; {at_least} were expected")
    if wrong:
        scene.seen.witness = list(wrong[:5])
    assert not wrong, f"{len(wrong)} of {count} links of the chain are broken: {wrong[0] if wrong else ''}"
    scene.seen.count(count)


@drill("drill/audit/chain-of-a-tenant", covers=("I10",))
def test_chain_of_a_tenant(scene: Scene) -> None:
    """A tenant's audit rows form a chain from 64 zeros on, each hash made from the row's content as the contract says.

    Without a sound chain nobody can tell an edited trail from an untouched one.
    """
    company = scene.company(items=2)
    scene.run(company, dry_run=True)
    run = str(scene.run(company, max=2)["replay_run_id"])
    scene.ended(run)
    scene.until(lambda: scene.audit(company, "dlq_replay"), "the summary of the run")
    first = scene.audit(company)[0]
    assert first["prev_hash"] == GENESIS, f"the first row's prev_hash is {first['prev_hash']!r}; 64 zeros are due"
    _assert_chain(scene, company, at_least=4)


@drill("drill/audit/head-of-a-tenant", covers=("I11",))
def test_head_of_a_tenant(scene: Scene) -> None:
    """The head of a tenant's chain is its last row: id, hash and number of rows.

    Without a head the end of the trail can be cut off unseen.
    """
    company, _ = _row_on_record(scene)
    rows = scene.audit(company)
    head = head_of(scene.db, company)
    assert head, "the tenant's scope has no row in audit_heads"
    due = (rows[-1]["id"], rows[-1]["hash"], len(rows))
    got = (head["last_id"], head["last_hash"], head["row_count"])
    assert got == due, f"audit_heads says {got}; the last row of the trail is {due}"
    scene.seen.count()


@drill("drill/audit/chain-under-concurrency", covers=("I10",))
def test_chain_under_concurrency(scene: Scene) -> None:
    """Rows written at the same moment for one tenant still form one chain.

    A chain that forks under load breaks on the busiest day, and every later check of it fails.
    """
    company = scene.company(items=9)
    requests = [scene.replay_request(company, max=3, idempotency_key=str(uuid.uuid4())) for _ in range(3)]
    requests += [scene.replay_request(company, max=1) for _ in range(3)]
    answers = [a for a in scene.http.burst(requests) if not isinstance(a, NoAnswer)]
    scene.seen.require(any(a.status == 200 for a in answers), "no concurrent replay was accepted")
    runs = [str(a.json()["replay_run_id"]) for a in answers if a.status == 200]
    for run in runs:
        scene.ended(run)
    _assert_chain(scene, company, at_least=len(runs))
    head = head_of(scene.db, company)
    scene.seen.require(head, "the scope has no head: drill/audit/head-of-a-tenant")
    total = scene.number("select count(*) from public.audit_logs where scope = %s", company)
    # the trail may still grow between the two statements; a head that counts more than there is, never
    assert head["row_count"] <= total, f"the head counts {head['row_count']} rows, the trail has {total}"
    scene.seen.control(f"{len(runs)} concurrent replays were accepted")


@drill("drill/audit/chain-while-another-appends", covers=("I10",))
def test_chain_while_another_appends(scene: Scene) -> None:
    """Rows that are written while another row of their scope is not committed yet follow it one after the other: the
    chain does not fork, even where their writers wait for the same row and continue at the same moment.

    If two rows have the same predecessor, there are two trails, and nobody can tell which row is forged.
    """
    company, _ = _row_on_record(scene)

    def append() -> None:
        with scene.transaction() as second:
            execute(second, APPEND, company)
            second.commit()

    with scene.transaction() as first:
        execute(first, APPEND, company)
        appended = [aside(append) for _ in range(4)]
        scene.somebody_waits(first, within_s=2)
        # where they queue for one lock, only the first of them is seen to wait
        scene.somebody_waits(first, within_s=0.3, sessions=len(appended))
        first.commit()
    for one in appended:
        one.result()
    _assert_chain(scene, company, at_least=2 + len(appended))
    scene.seen.control("rows were written beside one that was not committed")


@drill("drill/audit/plain-insert-is-chained", covers=("I10",))
def test_plain_insert_is_chained(scene: Scene) -> None:
    """A row inserted by plain SQL, as the gate does it, is a link of its scope's chain.

    The gate writes its rollbacks like this: they must be part of the trail, too.
    """
    company, _ = _row_on_record(scene)
    before = len(scene.audit(company))
    with scene.transaction() as connection:
        execute(
            connection,
            "insert into public.audit_logs (action, actor, scope, metadata) values"
            " ('rate_limits_cleared', 'drill', %s, %s)",
            company,
            '{"ö": [1.50, null, "\u2028"], "b": {"a": 1}}',
        )
        count, wrong = broken_links(connection, company)
        head = head_of(connection, company)
    assert count == before + 1, f"the scope has {count} rows after an insert into {before}"
    assert not wrong, f"after a plain INSERT the chain is broken: {wrong[0] if wrong else ''}"
    assert head.get("row_count") == count, f"the head counts {head.get('row_count')} rows of {count}"
    scene.seen.count(count)


@drill("drill/audit/scopes-apart", covers=("I10", "I13"))
def test_scopes_apart(scene: Scene) -> None:
    """Each tenant has a chain of its own, which begins anew.

    One chain for all lets the load of one tenant stop the trail of all, and shows one tenant the size of another.
    """
    one, _ = _row_on_record(scene)
    two, _ = _row_on_record(scene)
    for company in (one, two):
        first = scene.audit(company)[0]["prev_hash"]
        assert first == GENESIS, f"the chain of a new tenant begins with {first!r}"
        _assert_chain(scene, company, at_least=1)


@drill("drill/audit/forged-hash-is-not-kept", covers=("I05", "I10"))
def test_forged_hash_is_not_kept(scene: Scene) -> None:
    """A plain INSERT that brings hashes of its own does not break the chain: they are refused or replaced.

    Otherwise anyone with the right to insert can break the chain.
    """
    company, _ = _row_on_record(scene)
    with scene.transaction() as connection:
        execute(connection, "savepoint before_insert")
        try:
            execute(
                connection,
                "insert into public.audit_logs (action, actor, scope, metadata, prev_hash, hash)"
                " values ('rate_limits_cleared', 'drill', %s, '{}', repeat('0', 64), repeat('f', 64))",
                company,
            )
        except psycopg.OperationalError:
            raise  # a time limit or a lost connection is no refusal: it proves nothing
        except psycopg.Error as error:
            scene.seen.details["refused"] = type(error).__name__
            execute(connection, "rollback to savepoint before_insert")
        count, wrong = broken_links(connection, company)
    assert not wrong, f"a row with a forged hash was kept: {wrong[0] if wrong else ''}"
    scene.seen.count(count)
