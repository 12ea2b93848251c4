"""Runs a spot check in one read-only snapshot: no bad rows, and enough rows seen."""

import psycopg

from gates.checks.observation import Observer
from gates.text.characters import one_line
from gates.text.foreign import count, plain, text
from gates.text.quantity import with_unit
from sql_checks.spotfile import SpotCheck
from sql_checks.sqlsession import SqlSession

ROW_CONTRACT = ["subject", "detail", "witness"]
SHOWN_CHARACTERS = 400
SHOWN_ROWS = 20
COUNTED_ROWS = 1000
Found = psycopg.Cursor[dict[str, object]]


def judge_spot(spot: SpotCheck, session: SqlSession, observer: Observer) -> None:
    """Raise AssertionError on a violation; end as unknown where too little was seen or the role is blind."""
    if spot.reads == "rows" and session.blindness:
        observer.unmet(session.blindness)
    found, counted = session.ask(spot.violations, spot.seen)
    bad = _violations(spot, found, observer)
    seen = _seen(counted.fetchall())
    observer.count(seen)
    observer.value(len(bad), 0, "violations")
    if bad:
        observer.witness = [{k: plain(v) for k, v in row.items()} for row in bad[:SHOWN_ROWS]]
        first = bad[0]
        detail = one_line(text(first["detail"]), SHOWN_CHARACTERS)
        raise AssertionError(
            f"{_violations_text(len(bad))} observed, 0 allowed; first: {text(first['subject'])}: {detail}"
        )
    if seen < spot.minimum:
        observer.details["samples_needed"] = spot.minimum - seen
        observer.unmet(f"{with_unit(seen, 'rows')} seen, at least {spot.minimum} needed to judge: {spot.spec.claim}")
    observer.control(f"{with_unit(seen, 'rows')} seen")


def _violations(spot: SpotCheck, found: Found, observer: Observer) -> list[dict[str, object]]:
    columns = [d.name for d in found.description or ()]
    if columns != ROW_CONTRACT:
        observer.unmet(f"{spot.path.name} gives columns {columns}; allowed: {ROW_CONTRACT}. Correct the query")
    return found.fetchmany(COUNTED_ROWS)


def _seen(rows: list[dict[str, object]]) -> int:
    """The value of the seen query (one row, one column `seen`), else the number of its rows."""
    if len(rows) == 1 and list(rows[0]) == ["seen"]:
        return count(rows[0]["seen"])
    return len(rows)


def _violations_text(count: int) -> str:
    return f"{count} or more violations" if count >= COUNTED_ROWS else with_unit(count, "violations")
