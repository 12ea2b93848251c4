"""Row-level security proved by behaviour: what a tenant sees and may do, as the role tenants come in as."""

import enum
from collections.abc import Callable

import pytest

from gates.checks.observation import Observer, Unmet
from gates.contract.contract import contract
from gates.deployment.dialect.current import current
from gates.evidence import CheckSpec, Severity, Where
from gates.text.quantity import with_unit
from sql_checks.attempts.functions import ALL_S
from sql_checks.attempts.row_level_security import SEEDS, RlsProbe, Sight, has_strangers
from sql_checks.attempts.statements import UNFIT, Attempt
from sql_checks.collector import PROBE

CONTROL = "sql/rls/own-rows-visible"
CONTRACT = {*SEEDS, "audit_heads"}


PROBE_S = 300.0
"""The limit of the stage is less."""


class Errors(enum.Enum):
    """How to judge an error that the target's own code raised."""

    ARE_FAILURES = "nobody may meet one"
    REFUSE = "whoever is refused may be told so by an error"
    PROVE_NOTHING = "the statement did not come so far"


def spec(name: str, claim: str, cost: str, *covers: str, severity: Severity = Severity.PAGE) -> CheckSpec:
    """The spec of one check of the probe; its writes are rolled back."""
    return CheckSpec(f"sql/rls/{name}", claim, cost, severity, Where.SELF_CLEANING, needs=("database",), covers=covers)


@pytest.fixture(scope="session")
def looked(request: pytest.FixtureRequest) -> RlsProbe:
    """The result of the one probe that all checks judge."""
    return request.config.stash[PROBE].result(PROBE_S)


def _sights(looked: RlsProbe, seen: Observer) -> list[Sight]:
    if looked.exempt:
        seen.unmet(
            f"{looked.exempt}; it must be bound by row security. Give the gate a login that may SET ROLE authenticated"
        )
    if not looked.sights:
        seen.unmet("no table with tenant data was found; the contract has 12. Check DATABASE_URL")
    return looked.sights


def _judge(
    seen: Observer,
    sights: list[Sight],
    name: str,
    violates: Callable[[Sight, Attempt], str],
    *,
    errors: Errors = Errors.ARE_FAILURES,
) -> None:
    """Judge one kind of attempt on all tables: a violation fails, a table without its control proves nothing."""
    bad: list[str] = []
    unclear: list[str] = []
    for sight in sights:
        for case, attempt in _of_kind(sight, name):
            where = f"{sight.table.shown}{case}"
            if name == "upsert" and attempt.state == UNFIT:
                continue  # this table has no key that it could go by; its insert and its update are judged
            if problem := violates(sight, attempt) or _broken(sight, attempt, errors):
                bad.append(f"{where}: {problem}")
            elif attempt.unclear or not sight.owner_mine or _stopped_short(attempt, errors):
                unclear.append(f"{sight.table.shown}: {attempt.error or 'no row to look at'}")
            else:
                seen.count()
                seen.control(f"{where}: {sight.owner_mine} own rows are there, refused or unseen otherwise")
    seen.value(len(bad), 0, "attempts")
    if bad:
        seen.witness = list(bad)
        raise AssertionError(f"{len(bad)} observed, 0 allowed: {'; '.join(bad[:5])}")
    promised = [
        text for text in unclear if text.partition(":")[0] in {s.table.shown for s in sights if s.table.promised}
    ]
    if promised:
        seen.unmet(f"{with_unit(len(promised), 'tables')} could not be judged: {'; '.join(promised[:5])}")


def _stopped_short(attempt: Attempt, errors: Errors) -> bool:
    """Whether a write ended in an error that is not a refusal (P0001: a trigger refuses by raising)."""
    return errors is Errors.PROVE_NOTHING and attempt.raised and attempt.state != "P0001"


def _of_kind(sight: Sight, name: str) -> list[tuple[str, Attempt]]:
    """The attempts of a kind, each with its case."""
    found = [(key.removeprefix(name), attempt) for key, attempt in sight.seen.items()]
    return [(f" ({case[1:]})" if case else "", a) for case, a in found if not case or case.startswith(":")]


def _broken(sight: Sight, attempt: Attempt, errors: Errors) -> str:
    """What the target's own policy, view or function raised though it must not, and the login can run the statement.

    A view or table of the deployment's own may refuse by raising.
    """
    own_refusal = attempt.state == "P0001" and not sight.table.promised
    if errors is not Errors.ARE_FAILURES or not attempt.raised or sight.error or own_refusal:
        return ""
    return f"the target's own policy or function raised {attempt.state}: {attempt.error.splitlines()[0]}"


@pytest.mark.check(
    spec(
        "own-rows-visible",
        "A tenant sees its own rows in every table of the contract.",
        "Tenants see nothing: dashboards are empty, and every other check of tenancy would be vacuous.",
        "J00",
        "J06",
    )
)
def test_own_rows_visible(looked: RlsProbe, seen: Observer) -> None:
    """The control of this module."""

    def hidden(sight: Sight, attempt: Attempt) -> str:
        if not _is_shown(sight) or not sight.owner_mine:
            return ""
        told = "" if attempt.rows or attempt.unclear else f"{sight.owner_mine} own rows are there, 0 were seen."
        return f"{told} {attempt.error}".rstrip() if told else ""

    sights = _sights(looked, seen)
    owned = [s for s in sights if s.table.promised and _is_shown(s) and s.owner_mine]
    if current() and len(owned) > 1 and not any(s.seen["own"].rows or s.seen["own"].error for s in owned):
        raise Unmet(
            "a tenant sees no row of its own in any table. Where policies know a tenant by another claim or setting,"
            " say which in gate.yaml: names: tenant_claim, tenant_setting or members"
        )
    _judge(seen, sights, "own", hidden)
    tenants = {n for n in CONTRACT if current().real(n) and _has_tenant(n) and _is_claimed(n)}
    missing = tenants - {s.table.name for s in sights if s.table.promised}
    if missing:
        seen.unmet(f"no row to look at in {', '.join(sorted(missing))}; one is needed. Use a login that may write them")


@pytest.mark.check(
    spec(
        "other-tenants-hidden",
        "A tenant sees no row of another tenant, in any table or view, nor by a function called with its id.",
        "Customers read each other's data.",
        "J07",
        "J15",
    )
)
def test_other_tenants_hidden(looked: RlsProbe, seen: Observer) -> None:
    """The tenant does not see the rows that the login counts."""
    sights = _sights(looked, seen)
    for sight in sights:
        if sight.owner_other and _is_shown(sight) and not sight.seen["own"].rows:
            seen.unmet(f"{sight.table.shown}: the tenant does not even see its own row; see {CONTROL}")
    _judge(
        seen,
        sights,
        "foreign",
        lambda s, a: f"{with_unit(a.rows, 'rows')} of others seen, such as of {s.other}" if a.rows else "",
    )
    if given := [f"{name} gave {with_unit(rows, 'rows')} of another tenant" for name, rows in looked.told.gave.items()]:
        seen.witness = list(given)
        raise AssertionError(f"{len(given)} observed, 0 allowed: {'; '.join(given[:5])}")
    if by := looked.told.by:
        seen.severity, seen.witness = Severity.WARN, list(by)
        raise AssertionError(f"{len(by)} observed, 0 allowed: {', '.join(by[:5])} answered by rows of another tenant")
    if uncalled := looked.told.uncalled:
        seen.unmet(
            f"{len(uncalled)} functions that tenants may call were not called: {', '.join(uncalled[:5])}. To call one"
            " runs code of its owner, in a type of its own, with the gate's rights. Use types of the server, or give"
            " the types to an owner of the contract's tables"
        )
    if unchanged := looked.told.unchanged:
        seen.unmet(
            f"{len(unchanged)} functions that tenants may call could not be asked again once another tenant's rows are"
            f" gone, for those could not be deleted: {', '.join(unchanged[:5])}. Give the gate's login the right to"
            " delete drill tenants' rows, or revoke EXECUTE from authenticated"
        )
    if slow := looked.told.slow:
        seen.unmet(
            f"{len(slow)} functions or views that tenants may call or read did not end within {ALL_S:g} s in all:"
            f" {', '.join(slow[:5])}. Let each function refuse other tenants' callers before it reads, make each view"
            " fast, or revoke EXECUTE or SELECT from authenticated"
        )
    if unread := sorted({f"{t.shown} of {t.untrusted_owner}" for t in looked.unread}):
        seen.unmet(
            f"{len(unread)} relations that tenants may reach were not read: {', '.join(unread[:5])}. To read one runs"
            " code of its owner, who owns no table of the contract, with the gate's rights. Give each to an owner of"
            " the contract's tables (ALTER ... OWNER TO), or revoke what anon and authenticated hold on it"
        )


@pytest.mark.check(
    spec("stranger-sees-nothing", "A tenant without rows sees none.", "Customers read each other's data.", "J07")
)
def test_stranger_sees_nothing(looked: RlsProbe, seen: Observer) -> None:
    """Global rows (without a tenant) are nobody's own; they may be shown, and do not count."""
    _judge(
        seen,
        [s for s in _sights(looked, seen) if not _has_global_rows(s)],
        "stranger",
        lambda _s, a: f"{with_unit(a.rows, 'rows')} seen by a company that has none" if a.rows else "",
    )


def _has_tenant(name: str) -> bool:
    """Whether the rows of a table are tenants': flags or pauses without one are everybody's."""
    return "company_id" not in contract().relations[name].columns or current().has(name, "company_id")


def _is_shown(sight: Sight) -> bool:
    """Whether tenants must see their rows: tables of an area that is not claimed may be closed to everybody."""
    return sight.table.promised and _is_claimed(sight.table.name)


def _is_claimed(name: str) -> bool:
    return current().claims(contract().relations[name].area)


def _has_global_rows(sight: Sight) -> bool:
    return sight.table.name in {"feature_flags", "agent_controls", "feature_flags_status"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(key, id=key, marks=pytest.mark.check(spec(name, claim, cost, *covers)))
        for key, name, claim, cost, covers in (
            (
                "no_claims",
                "no-claims-see-nothing",
                "Without claims, authenticated sees no row, and no error.",
                "A request that forgot its tenant reads everybody's data.",
                ("J08",),
            ),
            (
                "empty_claims",
                "empty-claims-see-nothing",
                "With empty claims, authenticated sees no row, and no error.",
                "A request that forgot its tenant reads everybody's data.",
                ("J09",),
            ),
            (
                "no_company",
                "claims-without-company-see-nothing",
                "Claims without a company see no row.",
                "A token without a tenant reads everybody's data.",
                ("J08",),
            ),
            (
                "anon",
                "anon-sees-nothing",
                "anon sees no row, whatever it claims, and if it claims nothing.",
                "Whoever has the public key reads everybody's data.",
                ("J05", "J23"),
            ),
            (
                "garbage",
                "garbage-claims-see-nothing",
                "Claims that name no tenant (a list, a wildcard, text that is no JSON) see no row.",
                "Whoever can shape the claims of a token reads everybody's data.",
                ("J09",),
            ),
            (
                "row_security_off",
                "row-security-off-shows-nothing",
                "A tenant that switches row_security off gets an error.",
                "One SET statement undoes all policies.",
                ("J27",),
            ),
        )
    ],
)
def test_sees_nothing(name: str, looked: RlsProbe, seen: Observer) -> None:
    """Without a tenant no row is seen. Where strangers have no role, the rights of PUBLIC are theirs."""
    if name == "anon" and not has_strangers():
        sights = _sights(looked, seen)
        if opened := sorted({s.table.shown for s in sights if s.table.is_open}):
            seen.unmet(
                f"gate.yaml says that strangers have no role (names: roles: anon), and PUBLIC or a role anon may read"
                f" {', '.join(opened[:5])}. Revoke that, or name the role as which strangers come in"
            )
        seen.count(len(sights))
        seen.control(f"neither PUBLIC nor a role anon may read any of {len(sights)} tables")
        return
    told = {"garbage": Errors.REFUSE, "row_security_off": Errors.REFUSE}
    errors = told.get(name, Errors.ARE_FAILURES)
    _judge(
        seen,
        _sights(looked, seen),
        name,
        lambda _s, a: f"{with_unit(a.rows, 'rows')} seen" if a.rows else "",
        errors=errors,
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(key, id=key, marks=pytest.mark.check(spec(name, claim, cost, *covers)))
        for key, name, claim, cost, covers in (
            (
                "insert",
                "insert-for-another-refused",
                "A tenant cannot insert a row for another tenant.",
                "Customers write into each other's queues.",
                ("J10",),
            ),
            (
                "move",
                "move-to-another-refused",
                "A tenant cannot make its row another tenant's.",
                "Customers write into each other's queues.",
                ("J11",),
            ),
            (
                "update",
                "update-of-another-touches-nothing",
                "A tenant cannot change another tenant's row, nor by a function given its id (not on production).",
                "Customers change each other's data.",
                ("J12",),
            ),
            (
                "delete",
                "delete-of-another-touches-nothing",
                "A tenant cannot delete another tenant's row.",
                "Customers delete each other's data.",
                ("J12",),
            ),
            (
                "upsert",
                "upsert-of-another-refused",
                "ON CONFLICT DO UPDATE cannot reach another tenant's row.",
                "Customers overwrite each other's flags and budgets.",
                ("J13",),
            ),
        )
    ],
)
def test_writes_nothing(name: str, looked: RlsProbe, seen: Observer) -> None:
    """Refused with insufficient_privilege or by a trigger, or no row touched."""
    _judge(
        seen,
        _sights(looked, seen),
        name,
        lambda _s, a: f"{with_unit(a.rows, 'rows')} written" if a.rows else "",
        errors=Errors.PROVE_NOTHING,
    )
    if name == "update" and looked.told.wrote:
        wrote = looked.told.wrote.items()
        given = [f"{f} changed or copied rows of another tenant in {with_unit(n, 'tables')}" for f, n in wrote]
        seen.witness = list(given)
        raise AssertionError(f"{len(given)} observed, 0 allowed: {'; '.join(given[:5])}")
