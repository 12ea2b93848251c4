"""Faults of the real catalogue go into a real deployment and out again; their witnesses see both."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gates import catalogue
from gates.decision.rules import Policy
from gates.deployment.http.client import HttpDoor
from gates.deployment.requests import encode_body, mint_token, token_post
from gates.evidence import TargetKind
from gates.proof.fault import Kind, ListedFault
from gates.proof.matrix.campaign import RunScope
from gates.proof.mutants.campaign import MutantCampaign
from gates.proof.mutants.mutant import mutants, planted
from gates.proof.trial import Trial
from gates.proof.workbench.bench import ProofBench
from gates.stack.postgres import connect
from gates.stack.service import SOURCE_ROOT
from gates.verdict import Decision


def test_the_catalogue_is_read_and_has_a_noop(faults: dict[str, ListedFault]) -> None:
    """Every fault of the package can be judged."""
    assert [f.id for f in faults.values() if f.is_noop] == ["noop/nothing"]
    assert {Kind.SERVICE, Kind.WORKER} <= {f.kind for f in faults.values()}


@pytest.mark.parametrize(
    "name",
    ["authentication/unverified", "authentication/nothing-is-verified", "pause/nobody-is-paused", "noop/nothing"],
    ids=["service", "proxy", "trigger", "none"],
)
def test_a_fault_is_seen_on_and_off_again(name: str, deployment: ProofBench, faults: dict[str, ListedFault]) -> None:
    """The witness sees a fault only while it is in; the no-op's witness sees nothing."""
    fault = faults[name]
    assert deployment.witness(fault) is False
    deployment.put_in(fault)
    assert deployment.witness(fault) is (not fault.is_noop)
    deployment.take_out(fault)
    assert deployment.witness(fault) is False


def test_statements_and_events_go_in_and_out(deployment: ProofBench) -> None:
    """SQL of several statements is applied and undone; a frozen worker is replaced by a new process."""
    sql = ListedFault(
        "x/sql", "x", Kind.SQL, Decision.HOLD, sql="create table p (a int); create table q (a int)",
        undo_sql="drop table p; drop table q",
    )  # fmt: skip
    deployment.put_in(sql)
    deployment.execute("insert into p values (1); insert into q values (1)")
    deployment.take_out(sql)
    frozen = ListedFault("x/frozen", "x", Kind.PROCESS, Decision.HOLD, event="stop-worker")
    before = [p.pid for p in deployment.stack.processes if p.name.startswith("worker")]
    deployment.put_in(frozen)
    deployment.take_out(frozen)
    after = [p.pid for p in deployment.stack.processes if p.name.startswith("worker")]
    assert None not in after
    assert before != after


def test_mutants_of_the_schema_and_of_the_service_are_what_runs(deployment: ProofBench) -> None:
    """The mutant takes effect; the next rebuild restores the schema, the roles and the service."""
    found = mutants()
    index = next(m for m in found if ":delete-" in m.id and m.said.startswith("CREATE INDEX event_outbox_lag_idx"))
    forced = next(m for m in found if "/replay.py:" in m.id and ":delete-" in m.id and "raise forbidden()" in m.said)

    def seen() -> tuple[object, ...]:
        with connect(deployment.stack.info.database_url) as connection:
            row = connection.execute(
                "select to_regclass('public.event_outbox_lag_idx') is not null, (select string_agg(rolname, ' '"
                " order by rolname) from pg_roles where rolname ~ '^(replay_|anon|authenticated)')"
            ).fetchone()
        return row or ()

    def refused() -> int:
        with HttpDoor(deployment.stack.info.base_url) as door:
            body = encode_body({"company_id": deployment.stack.info.company_id})
            token = mint_token(deployment.stack.info.jwt_secret, {"sub": "a", "role": "nobody", "exp": 2**40})
            return door.send(token_post("/dlq-replay", body, token)).status

    before = seen()
    assert (before[0], refused()) == (True, 403)
    with planted(index) as source:
        deployment.rebuild(source)
        deployment.execute(index.as_applied)
        assert seen() == (False, before[1])
    deployment.rebuild(SOURCE_ROOT)
    assert seen() == before
    with planted(forced) as source:
        deployment.renew(source)
        assert refused() != 403
    deployment.renew()
    assert (seen(), refused()) == (before, 403)


FEW = (
    *("drill/authentication/signed-accepted", "drill/tokens/admin-accepted", "drill/tokens/role-other"),
    "sql/rls/own-rows-visible",
)


def test_a_mutant_is_shown_on_a_lane_to_checks_that_see_it_or_not(deployment: ProofBench, tmp_path: Path) -> None:
    """A mutant that a check sees is rolled back; one that no check of these can see is promoted."""
    policy = Policy(tuple(s for s in catalogue.load() if s.id in FEW), TargetKind.STAGING)
    found: list[Trial] = []

    @contextmanager
    def opened(*_kind: TargetKind, **_options: object) -> Iterator[ProofBench]:
        yield deployment

    shown = [
        next(m for m in mutants() if all(word in f"{m.id} {m.said}" for word in words))
        for words in (
            ("/replay.py", ":delete-", "raise forbidden()"),
            ("/rail.py", ":boundary-"),
            ("_012_row_level", ":delete-", "tenant_sees_own"),
        )
    ]
    MutantCampaign(
        opened, policy, (), tmp_path, RunScope(), {shown[1].key: "no check of these looks"}, lanes=1, short=True,
        done=found.append,
    ).run(shown)  # fmt: skip
    by_name = {t.name: t for t in found}
    assert [(by_name[m.id].decision, by_name[m.id].reason) for m in shown[:2]] == [
        ("rollback", "drill/tokens/role-other"),
        ("promote", "equivalent: no check of these looks"),
    ]
    assert [by_name[m.id].ok for m in shown] == [True, True, True]
    deployment.rebuild(SOURCE_ROOT)
