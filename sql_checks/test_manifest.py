"""The deployed schema is the one the release was tested with: one check for each kind of object."""

from pathlib import Path

import pytest

from gates.checks.observation import Observer
from gates.evidence import CheckSpec, Severity, Where
from gates.text.quantity import with_unit
from sql_checks.fingerprint import (
    Difference,
    Manifest,
    compare,
    kind_of,
    kind_query,
    load_manifest,
    other_release,
    read_migrations,
)
from sql_checks.sqlsession import SqlSession

CHECKS = (
    (
        "columns",
        "Every column has the type, default and nullability of the release.",
        "Code meets data it does not know.",
    ),
    ("constraints", "Every constraint of the release is there, and no other.", "Wrong rows come in."),
    (
        "indexes",
        "Every index of the release is there and usable.",
        "Queries that were fast are slow; unique keys are not.",
    ),
    ("triggers", "Every trigger of the release is there and enabled.", "Rules that the schema promises are not kept."),
    ("policies", "Every policy is word for word that of the release.", "A tenant sees another tenant's rows."),
    ("grants", "Everybody holds exactly the rights of the release.", "Somebody can do what nobody reviewed."),
    ("functions", "Every function is that of the release.", "Flags, budgets or the audit trail work differently."),
    ("views", "Every view is that of the release.", "What people look at is not what there is."),
    ("row_security", "Row-level security is on and forced where the release has it.", "All tenants see all rows."),
    ("roles", "The roles have no more power than in the release.", "A program is exempt from every policy."),
    ("extensions", "Extensions have the versions of the release.", "What was tested is not what runs."),
)
COVERS = {
    "columns": ("N04", "N10"),
    "constraints": ("N04", "D15"),
    "indexes": ("N04", "N02"),
    "triggers": ("N04", "I09"),
    "policies": ("N04", "N14", "J03", "J04"),
    "grants": ("N04", "J23"),
    "functions": ("N04", "I09"),
    "views": ("N04", "J15"),
    "row_security": ("N04", "N14", "J02"),
    "roles": ("N04", "J01"),
    "extensions": ("N13",),
}
SHOWN = 20


def spec(name: str, claim: str, cost: str, covers: tuple[str, ...]) -> CheckSpec:
    """The spec of one comparison; the difference found sets how bad it is."""
    check_id = f"sql/manifest/{name.replace('_', '-')}"
    return CheckSpec(check_id, claim, cost, Severity.PAGE, Where.READ_ONLY, needs=("database",), covers=covers)


@pytest.fixture(scope="session")
def manifest(request: pytest.FixtureRequest) -> Manifest | None:
    """The release's manifest, or None."""
    name = request.config.getoption("--manifest")
    return load_manifest(Path(name) if name else None)


@pytest.fixture(scope="session")
def applied(sql_session: SqlSession) -> dict[str, str]:
    """The migrations that the deployment says it has, with their checksums."""
    with sql_session.snapshot() as connection:
        return dict(read_migrations(connection))


@pytest.fixture(scope="session")
def login(sql_session: SqlSession) -> str:
    """The gate's own role."""
    (row,) = sql_session.ask("select current_user::text as login")[0].fetchall()
    return str(row["login"])


def _release(manifest: Manifest | None, applied: dict[str, str], seen: Observer) -> Manifest:
    if manifest is None:
        seen.unmet(
            "there is no manifest of the release. Make one with `gate sql --write-manifest FILE` where you trust it"
        )
    if reason := other_release(manifest, applied):
        seen.unmet(
            f"{reason}. Make its own on a database you trust by `gate doctor --write`, or `gate sql --write-manifest F`"
            " and `sql: {manifest: F}` in gate.yaml"
        )
    return manifest


def _judge(differences: list[Difference], compared: int, seen: Observer) -> None:
    seen.count(compared)
    seen.value(len(differences), 0, "differences")
    if differences:
        seen.severity = differences[0].severity
        seen.witness = [d.text for d in differences[:SHOWN]]
        raise AssertionError(
            f"{with_unit(len(differences), 'differences')} observed, 0 allowed; worst: {differences[0].text}"
        )
    seen.control(f"{compared} objects equal to the manifest's")


@pytest.mark.check(
    spec(
        "migrations",
        "The applied migrations are those of the release, with their checksums.",
        "The schema is half of one release and half of another.",
        ("N01",),
    )
)
def test_migrations(applied: dict[str, str], manifest: Manifest | None, seen: Observer) -> None:
    """The applied migrations are those of the release."""
    release = _release(manifest, applied, seen)
    if not release.migrations and not applied:
        seen.count(1)
        seen.value(0, 0, "differences")
        seen.control("neither the manifest nor the deployment keeps migrations in public.schema_migrations")
        return
    differences = [
        Difference(
            v,
            release.migrations.get(v),
            applied.get(v),
            Severity.WARN if v not in release.migrations else Severity.PAGE,
        )
        for v in sorted({*release.migrations, *applied})
        if release.migrations.get(v) != applied.get(v)
    ]
    _judge(sorted(differences, key=lambda d: list(Severity).index(d.severity)), len(applied), seen)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(name, id=name, marks=pytest.mark.check(spec(name, claim, cost, COVERS[name])))
        for name, claim, cost in CHECKS
    ],
)
def test_kind(
    kind: str, sql_session: SqlSession, applied: dict[str, str], manifest: Manifest | None, login: str, seen: Observer
) -> None:
    """One kind of object is as in the release."""
    release = _release(manifest, applied, seen)
    found = kind_of(kind, sql_session.ask(kind_query(kind))[0].fetchall())
    compared = max(len(found), len(release.kinds[kind]))
    if compared == 0:
        seen.count(1)  # neither the release nor the database has an extension
        seen.value(0, 0, "differences")
        seen.control("the release has none, and none was found")
        return
    _judge(compare(kind, release.kinds[kind], found, login), compared, seen)
