"""The contract as data: every check has one area, and every object is one that the reference's schema has."""

from fnmatch import fnmatchcase

from gates import catalogue
from gates.contract.contract import contract
from gates.text.patterns import matches
from sql_checks.fingerprint import load_manifest

CHECKS = [spec.id for spec in catalogue.load()]


def test_every_check_has_one_area() -> None:
    """One area names the check, or else one alone has a pattern for it."""
    areas, wrong = contract().areas.values(), {}
    for check in CHECKS:
        named = [a.name for a in areas if check in a.checks]
        like = [a.name for a in areas if matches(check, a.checks)]
        if len(named) != 1 and (named or len(like) != 1):
            wrong[check] = named, like
    assert wrong == {}


def test_no_pattern_is_stale() -> None:
    """Every pattern of an area matches a check, save those of the queues, whose checks may come from presets."""
    stale = [
        p
        for a in contract().areas.values()
        if a.name != "queue"
        for p in (*a.checks, *contract().also.get(a.name, ()))
        if not any(fnmatchcase(check, p) for check in CHECKS)
    ]
    assert stale == []


def test_objects_name_known_areas() -> None:
    """Every object of the contract belongs to an area of it."""
    data = contract()
    named = {e.area for e in data.endpoints.values()} | {r.area for r in data.relations.values()}
    named |= {f.area for f in data.functions.values()} | {
        *data.headers.values(),
        *data.roles.values(),
        *data.flags.values(),
    }
    assert named <= set(data.areas)


def test_columns_are_those_of_the_reference() -> None:
    """Every column of a table is in the manifest of the reference, and its type is that of the contract."""
    manifest = load_manifest(None)
    assert manifest is not None
    columns = manifest.kinds["columns"]
    wrong = [
        (f"{r.name}.{c}", t, columns.get(f"{r.name}.{c}"))
        for r in contract().relations.values()
        if not r.is_view
        for c, t in r.columns.items()
        if not columns.get(f"{r.name}.{c}", "").startswith(t.replace("timestamptz", "timestamp with time zone"))
    ]
    assert wrong == []
