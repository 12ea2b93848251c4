"""Acts under other names change and read back the real row; under wrong names nothing is called done."""

import json
import time
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from gates.act.emergency import emergency
from gates.act.flag import Order, look_at
from gates.act.operations import set_budget
from gates.act.rollback import roll_back
from gates.act.rollout import promote
from gates.contract.names import names_of
from gates.decision.rules import RolloutPlan
from gates.deployment.dialect.current import use
from gates.deployment.sql.database import connect, session, value
from gates.deployment.target import Target
from gates.deployment.tenants.loans import Ending, LiveRow, give_back, lend
from gates.deployment.tenants.tenants import Tenants
from gates.evidence import TargetKind
from gates.verdict import NOT_ROLLED_BACK
from tests import renamed
from tests.gates.gate_process import gate

PLAN = RolloutPlan("outbox.enabled", settle_s=0, drain_timeout_s=2, rollback_patience_s=2)
ORDER = Order(PLAN, "r1", "test", "why", by_hand=True)
GIVEN = {k: v for k, v in renamed.names().items() if k != "roles"}  # roles are the whole server's


@pytest.fixture
def url(migrated_url: str) -> str:
    """A renamed database with its names in use; the flag is on at 10 %."""
    with psycopg.connect(migrated_url, row_factory=dict_row) as connection:
        connection.execute("delete from public.feature_flags")
        connection.execute("insert into public.feature_flags (key, enabled, rollout_percentage) values (%s, true, 10)",
                           (PLAN.flag,))  # fmt: skip
        renamed.rename(connection, roles=False)
    use(names_of(GIVEN))
    return migrated_url


def real(url: str, statement: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(statement.encode()).fetchone()
        return row[0] if row else None


def test_a_step_and_the_way_back(url: str) -> None:
    """The real tables show the promotion, the rollback and their audit rows."""
    action = promote(url, Order(PLAN, "r1", "test", "why", seen=look_at(url, PLAN.flag), by_hand=True))
    assert action.result == "done", action
    assert real(url, "select share from app.switches") == 50
    back = roll_back(url, ORDER, time.monotonic, print)
    assert (back.result, back.flag) == ("done", "off")
    assert real(url, "select is_on from app.switches") is False
    assert real(url, "select string_agg(action, ',' order by id) from ops.journal") == "flag_promoted,flag_rolled_back"


def test_an_emergency(url: str) -> None:
    """All three parts are done, and the real row of everybody's pause is set."""
    done = emergency(url, ORDER, time.monotonic, print)
    assert [s.result for s in done.steps] == ["done"] * 3, done
    assert real(url, "select is_paused from app.controls where tenant_id is null") is True


@pytest.mark.parametrize(
    "wrong",
    [
        {"feature_flags": {"is": "app.no_such_table"}},
        {"feature_flags": {"is": "app.controls"}},
        {"feature_flags": {"is": "app.switches", "columns": {"enabled": "nothing"}}},
        {"feature_flags": {"absent": True}},
        {"feature_flags": {"is": "app.switches", "columns": {"key": "description", "enabled": "is_on"}}},
    ],
)
def test_a_rollback_under_wrong_names_is_not_done(url: str, wrong: dict[str, object]) -> None:
    """It fails or is not possible, never calls the flag off, and leaves the real one unchanged."""
    use(names_of({**GIVEN, "tables": {**GIVEN["tables"], **wrong}}))
    action = roll_back(url, ORDER, time.monotonic, print)
    assert action.result in {"failed", "not_possible"}
    assert action.flag != "off"
    assert real(url, "select is_on from app.switches") is True


def test_drill_tenants_and_loans(url: str) -> None:
    """Drills write, lend and restore in the real tables, and remove what they wrote."""
    with session(url) as connection:
        tenants = Tenants(connection, "run")
        company = tenants.create()
        items = tenants.add_items(company, 2, status="replaying")
        assert real(url, "select string_agg(distinct status, ',') from ops.failed_jobs") == "in_progress"
        assert value(connection, "select status from public.dead_letter_queue where id = %s", items[0]) == "replaying"
        loan = lend(connection, LiveRow(PLAN.flag), {"enabled": False}, run="run", lease="h1")
        assert real(url, f"select is_on from app.switches where key = '{PLAN.flag}'") is False
        assert give_back(connection, loan) is Ending.GIVEN_BACK
        tenants.remove()
    assert real(url, "select count(*) from app.accounts") == 0
    assert real(url, "select count(*) from ops.failed_jobs") == 0


def test_an_index_serves_a_renamed_column(url: str) -> None:
    """A look-up by the contract's column uses the index on the real one."""
    with connect(url) as connection:
        connection.execute("set enable_seqscan = off")
        plan = connection.execute(
            "explain select 1 from public.agent_tasks where event_id = gen_random_uuid()"
        ).fetchall()
    assert "Index" in str(plan)
    assert "fact_id" in str(plan)


# --- a policy that may give names, and cannot be read ------------------------------------------------------------

LIVE = "version: 1\nnames:\n  tables:\n    feature_flags: {is: live.feature_flags}\n"


@pytest.fixture
def two_tables(migrated_url: str) -> str:
    """Two tables of flags: users have `live`, an old one has the contract's name; the flag is on in both."""
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute("delete from public.feature_flags")
        connection.execute("insert into public.feature_flags (key, enabled) values (%s, true)", (PLAN.flag,))
        connection.execute("create schema live; create table live.feature_flags (like public.feature_flags)")
        connection.execute("insert into live.feature_flags select * from public.feature_flags")
    return migrated_url


def by_hand(two_tables: str, policy: Path, folder: Path, *words: str) -> tuple[int, dict[str, object], str]:
    """Exit code, action and stderr of a command by hand, by default `gate rollback`."""
    command = words or ("rollback",)
    more = (f"--flag={PLAN.flag}", "--reason=harm", "--json", f"--policy={policy}", f"--state={folder / 'state'}")
    done = gate(*command, *more, cwd=folder, environ={"DATABASE_URL": two_tables})
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr


UNREADABLE = (
    LIVE.encode() + b"# gepr\xfcft\n",
    LIVE.encode("utf-16"),
    LIVE.encode("utf-16-le"),
    b"version: 1\nrollout: {flag: x, flag: y\n# the names are in another file\n",
    b'"n\\x61mes": {tables: {feature_flags: {is: live.feature_flags}}}\nwaivers: [\n',
    None,
)
AS_IT_IS, DRY = ("rollback",), ("rollback", "--dry-run")


@pytest.mark.parametrize(
    ("text", "words"),
    [*((text, AS_IT_IS) for text in UNREADABLE), (UNREADABLE[0], DRY), (UNREADABLE[0], ("emergency",))],
)
def test_a_policy_that_may_give_names_and_cannot_be_read_is_never_a_rollback_that_is_done(
    text: bytes | None, words: tuple[str, ...], two_tables: str, tmp_path: Path
) -> None:
    """The contract's table is tried; the exit code is 21 with the SQL, since the names may differ."""
    policy = tmp_path / "policy.yaml"
    if text is not None:
        policy.write_bytes(text)
    code, action, _ = by_hand(two_tables, policy, tmp_path, *words)
    assert (code, action["flag"], action["result"]) == (NOT_ROLLED_BACK, "unknown", "failed")
    assert "policy.yaml" in str(action["message"])
    assert "names: tables: feature_flags" in str(action["by_hand"])
    assert "UPDATE public.feature_flags" in str(action["by_hand"])
    assert action["recovery"] == {} or dict(action["recovery"])["proved"] is False  # type: ignore[call-overload]
    assert real(two_tables, "select enabled from live.feature_flags") is True
    assert real(two_tables, "select enabled from public.feature_flags") is ("--dry-run" in words)


@pytest.mark.parametrize(
    "text",
    [
        '{"version": 1, "names": {"tables": {"feature_flags": {"is": "live.feature_flags"}}}, "waivers": [}',
        '"names":\n  tables:\n    feature_flags: {is: live.feature_flags}\nrollout: {flag: x, flag: y\n',
        LIVE + "rollout: {flag: x, flag: y\n",
    ],
)
def test_names_given_that_cannot_be_read_are_acted_on_by_nobody(text: str, two_tables: str, tmp_path: Path) -> None:
    """The policy means another table, so the contract's is left alone."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(text)
    code, _, said = by_hand(two_tables, policy, tmp_path)
    assert code == NOT_ROLLED_BACK
    assert "nothing was done" in said
    assert real(two_tables, "select enabled from public.feature_flags") is True


def test_a_policy_without_names_that_is_wrong_elsewhere_is_no_doubt(two_tables: str, tmp_path: Path) -> None:
    """Without `names:` the contract's table is the right one."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nrollout: {flag: x, flag: y\n")
    code, action, _ = by_hand(two_tables, policy, tmp_path)
    assert (code, action["flag"], action["result"]) == (0, "off", "done")


def test_a_budget_needs_no_unique_key(url: str) -> None:
    """Without a unique key the existing row is changed or a new one made; other columns stay."""
    with psycopg.connect(url) as connection:
        connection.execute(f"alter table {renamed.TABLES['replay_budgets']} drop constraint replay_budgets_pkey")
    target = Target(TargetKind.STAGING, database_url=url)
    tenant = "00000000-0000-4000-8000-00000000000b"
    assert set_budget(target, tenant, 7, None) == {"company_id": tenant, "daily_limit": 7, "monthly_limit": 10000}
    assert set_budget(target, tenant, None, 9) == {"company_id": tenant, "daily_limit": 7, "monthly_limit": 9}
    assert real(url, f"select count(*) from {renamed.TABLES['replay_budgets']}") == 1
