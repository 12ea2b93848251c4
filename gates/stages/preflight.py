"""The preflight: can the target be asked at all, is it the release that is meant, and does the login see what it must.

Everything here is read-only, but for one company and two dry runs on a staging target of loopback. What cannot be asked
is unknown; only a wrong release is harm.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from gates.evidence import CheckSpec, Evidence, JsonValue, Outcome, Severity, Where
from gates.evidence_file import write_lines
from gates.stages.context import Context, Progress, StageReport
from gates.target.capabilities import claims, evidence_id
from gates.target.client import HttpDoor, NoAnswer
from gates.target.database import Connection, execute, session, sql
from gates.target.deployment import Target
from gates.target.redaction import hidden, redact_text
from gates.target.requests import Request, has_expired

QUERIES = Path(__file__).with_name("queries")
VERSION_REQUESTS = 12
"""New connections that ask for /version: enough to meet each of three instances with 97 % at random balancing."""
READY_PATIENCE_S = 5.0
READY_POLL_S = 0.25
MOST_SKEW_S = 2.0
SERVERS = (15, 18)
MOST_RELEASE = 200
"""Characters of a release; a longer text names none."""
TIMEOUT_S = 5.0


def _spec(name: str, claim: str, cost: str, severity: Severity, *covers: str, after: tuple[str, ...] = ()) -> CheckSpec:
    return CheckSpec(f"preflight/{name}", claim, cost, severity, Where.READ_ONLY, (), after, covers, phase="first")


VARIABLES = _spec(
    "variables",
    "Every variable that the required checks need is set.",
    "What is not given cannot be checked, and what was not checked does not promote.",
    Severity.WARN,
)
REACHABLE = _spec(
    "target-reachable",
    "The target answers at BASE_URL.",
    "Without an answer nothing can be said about the release.",
    Severity.WARN,
)
RELEASE = _spec(
    "release",
    "Every instance says that it runs the release that is meant.",
    "Another release is examined than the one that would be promoted.",
    Severity.PAGE,
    "O01",
    after=("preflight/target-reachable",),
)
READY = _spec(
    "ready",
    "The target says that it is ready: database reachable, schema as expected, worker alive.",
    "A target that is not ready fails for reasons that have nothing to do with the release.",
    Severity.WARN,
    after=("preflight/target-reachable",),
)
DATABASE = _spec(
    "database",
    "The database answers, and is a PostgreSQL that the contract allows.",
    "Without SQL most promises cannot be seen, and the flag cannot be stepped.",
    Severity.WARN,
)
SIGHT = _spec(
    "database-role-sees-rows",
    "The gate's login sees all rows of every table of the contract.",
    "A login that row-level security blinds finds no bad row anywhere, and everything looks fine.",
    Severity.WARN,
    "M17",
    after=("preflight/database",),
)
SKEW = _spec(
    "clock-skew",
    "The clocks of the gate and of the database agree to two seconds.",
    "Signatures, windows and lags are measured with both clocks.",
    Severity.WARN,
    "O11",
    after=("preflight/database",),
)
SPECS = (VARIABLES, REACHABLE, RELEASE, READY, DATABASE, SIGHT, SKEW)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one preflight check saw."""

    outcome: Outcome
    message: str = ""
    observed: JsonValue = None
    limit: JsonValue = None
    unit: str = ""
    samples: int = 0
    details: dict[str, JsonValue] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preflight:
    """The result: the target with the release that its instances agree on, and the stage's report."""

    target: Target
    report: StageReport


def preflight(context: Context) -> Preflight:
    """Ask the target; write one line a check, and one a capability. Blocked checks say by what."""
    started = time.monotonic()
    target = context.target
    lines = [_timed(VARIABLES, target, lambda: variables(target))]
    with HttpDoor(target.base_url or "http://unset.invalid", timeout_s=TIMEOUT_S) as door:
        lines.append(_timed(REACHABLE, target, lambda: reachable(target, door)))
        versions = _versions(door) if lines[-1].outcome is Outcome.PASS else []
        lines.append(_after(lines, RELEASE, target, lambda: release(target, versions)))
        lines.append(_after(lines, READY, target, lambda: ready(door)))
    lines += _database_lines(target)
    lines += _capabilities(target, context.companies)
    agreed = {_release_of(v) for v in versions} - {""}
    if not target.release and len(agreed) == 1:
        target = dataclasses.replace(target, release=agreed.pop())
    hide = hidden(target)
    clean = [dataclasses.replace(e, release=target.release, message=redact_text(e.message, hide)) for e in lines]
    write_lines(context.evidence, clean)
    seconds = time.monotonic() - started
    outcomes = [e.outcome for e in clean if not e.check.startswith("preflight/capability/")]
    passed, failed, unknown = (outcomes.count(o) for o in (Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN))
    context.progress(Progress("preflight", passed, failed, unknown, len(outcomes), seconds, done=True))
    return Preflight(target, StageReport("preflight", seconds))


def _timed(spec: CheckSpec, target: Target, look: Callable[[], Seen]) -> Evidence:
    at, started = dt.datetime.now(dt.UTC), time.monotonic()
    try:
        seen = look()
    except Exception as error:  # noqa: BLE001  -- nothing that a target says ends the gate
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        seen = Seen(Outcome.UNKNOWN, f"{text}. See that the target can be reached from here")
    return Evidence(
        spec.id,
        seen.outcome,
        seen.message,
        seen.observed,
        seen.limit,
        seen.unit,
        seen.samples,
        at.isoformat(timespec="milliseconds"),
        round((time.monotonic() - started) * 1000, 1),
        release=target.release,
        details=seen.details,
    )


def _after(lines: Sequence[Evidence], spec: CheckSpec, target: Target, look: Callable[[], Seen]) -> Evidence:
    """The check, unless one that it comes after did not pass."""
    failed = [e.check for e in lines if e.check in spec.after and e.outcome is not Outcome.PASS]
    if not failed:
        return _timed(spec, target, look)
    blocked = _timed(spec, target, lambda: Seen(Outcome.UNKNOWN, f"blocked by {failed[0]}"))
    return dataclasses.replace(blocked, blocked_by=failed[0])


# --- over HTTP ---------------------------------------------------------------------------------------------------


def variables(target: Target) -> Seen:
    """Which variables of the contract are missing."""
    given = {
        "BASE_URL": target.base_url,
        "TRANSBOT_HMAC_SECRET": target.hmac_secret,
        "TEST_COMPANY_ID": target.test_company_id,
        "ADMIN_JWT": target.admin_jwt,
        "REPLAY_JWT_SECRET": target.jwt_secret,
        "DATABASE_URL": target.database_url,
    }
    missing = [name for name, text in given.items() if not text]
    if missing:
        message = f"{', '.join(missing)} not set: what needs them is unknown. Set them (docs/contract.md, section 1)"
        return Seen(Outcome.UNKNOWN, message, len(given) - len(missing), len(given), "variables", len(given))
    if has_expired(target.admin_jwt, time.time()):
        message = "ADMIN_JWT has expired: what needs it is unknown. Set it to a valid admin token"
        return Seen(Outcome.UNKNOWN, message, len(given) - 1, len(given), "variables", len(given))
    return Seen(Outcome.PASS, "", len(given), len(given), "variables", len(given))


def reachable(target: Target, door: HttpDoor) -> Seen:
    """Any answer of the service at /healthz."""
    if not target.base_url:
        return Seen(Outcome.UNKNOWN, "BASE_URL is not set. Set it to where the functions live")
    answer = door.send(Request("GET", "/healthz"))
    if answer.status != 200:
        return Seen(Outcome.UNKNOWN, f"/healthz answers {answer.status}; allowed: 200", answer.status, 200)
    return Seen(Outcome.PASS, "", answer.status, 200, samples=1)


def _versions(door: HttpDoor) -> list[dict[str, JsonValue]]:
    """What /version says over new connections; empty mappings for what is no such answer."""
    request = Request("GET", "/version", (("Connection", "close"),))
    found: list[dict[str, JsonValue]] = []
    for _ in range(VERSION_REQUESTS):
        try:
            answer = door.send(request)
        except NoAnswer:
            found.append({})
            continue
        found.append(answer.json() if answer.status == 200 else {})
    return found


def release(target: Target, versions: Sequence[dict[str, JsonValue]]) -> Seen:
    """The releases of all instances met; a wrong one fails, an unsaid one is unknown."""
    said = [_release_of(v) for v in versions]
    named = sorted({r for r in said if r})
    instances = len({str(v.get("instance", "")) for v in versions if v})
    details: dict[str, JsonValue] = {"releases": list[JsonValue](named), "instances": instances}
    if target.release and any(r != target.release for r in named):
        message = (
            f"/version says {', '.join(named)}; allowed: {target.release} (RELEASE). Finish or repair the deployment"
        )
        return Seen(Outcome.FAIL, message, ", ".join(named), target.release, samples=len(said), details=details)
    if len(named) != 1:
        message = f"the instances say {', '.join(named) or 'no release'}; allowed: one release. Wait, or set RELEASE"
        return Seen(Outcome.UNKNOWN, message, ", ".join(named), samples=len(said), details=details)
    silent = said.count("")
    if silent:
        message = f"{silent} of {len(said)} answers of /version name no release; allowed: none such"
        return Seen(Outcome.UNKNOWN, message, named[0], target.release, samples=len(said), details=details)
    return Seen(Outcome.PASS, "", named[0], target.release or named[0], samples=len(said), details=details)


def _release_of(version: Mapping[str, JsonValue]) -> str:
    """The release in an answer of /version; empty where it names none that anybody would give a release."""
    said = version.get("release")
    return said if isinstance(said, str) and len(said) <= MOST_RELEASE else ""


def ready(door: HttpDoor) -> Seen:
    """/readyz within a few seconds; only an answer of the target that it is not ready is a failure."""
    deadline = time.monotonic() + READY_PATIENCE_S
    while True:
        answer = door.send(Request("GET", "/readyz"))
        if answer.status == 200:
            return Seen(Outcome.PASS, "", 200, 200, samples=1)
        if time.monotonic() > deadline:
            break
        time.sleep(READY_POLL_S)
    said = answer.body[:200].decode("utf-8", "replace")
    message = f"/readyz answers {answer.status} for {READY_PATIENCE_S:g} s; allowed: 200. It says: {said}"
    outcome = Outcome.FAIL if answer.status == 503 else Outcome.UNKNOWN
    return Seen(outcome, message, answer.status, 200, samples=1)


# --- over SQL ----------------------------------------------------------------------------------------------------


def _database_lines(target: Target) -> list[Evidence]:
    if not target.database_url:
        missing = "DATABASE_URL is not set. Set it to a login that sees all rows (replay_gate)"
        first = _timed(DATABASE, target, lambda: Seen(Outcome.UNKNOWN, missing))
        return [first, *(_after([first], s, target, _never) for s in (SIGHT, SKEW))]
    try:
        with session(target.database_url, read_only=True) as connection:
            first = _timed(DATABASE, target, lambda: database(connection))
            sight = _after([first], SIGHT, target, lambda: sees_rows(connection, target))
            return [first, sight, _after([first], SKEW, target, lambda: clock_skew(connection))]
    except psycopg.Error as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        first = _timed(DATABASE, target, lambda: Seen(Outcome.UNKNOWN, f"no connection: {text}. Correct DATABASE_URL"))
        return [first, *(_after([first], s, target, _never) for s in (SIGHT, SKEW))]


def _never() -> Seen:
    raise AssertionError("a blocked check does not look")


def database(connection: Connection) -> Seen:
    """The server's major version."""
    major = connection.info.server_version // 10_000
    least, most = SERVERS
    if not least <= major <= most:
        message = f"PostgreSQL {major}; allowed: {least} to {most}. The checks are not known to hold there"
        return Seen(Outcome.UNKNOWN, message, major, f"{least}..{most}")
    return Seen(Outcome.PASS, "", major, f"{least}..{most}", samples=1)


def sees_rows(connection: Connection, target: Target) -> Seen:
    """Row-level security does not bind the login, or a policy opens every row to it."""
    tables = execute(connection, sql(QUERIES / "role_sight.sql"))
    absent = [str(t["name"]) for t in tables if not t["present"]]
    if absent:
        return Seen(Outcome.UNKNOWN, f"{', '.join(absent)} not found in schema public; allowed: the contract's tables")
    locked = [str(t["name"]) for t in tables if not t["readable"]]
    if locked:
        return Seen(Outcome.UNKNOWN, f"the login may not read {', '.join(locked)}. Grant SELECT to it")
    doubtful = [t for t in tables if t["secured"] and (t["narrowed"] or not t["open"])]
    if doubtful and not _counts_agree(connection, tables, target):
        names = ", ".join(str(t["name"]) for t in doubtful)
        message = f"row-level security hides rows of {names} from this login. Use one that sees all rows (replay_gate)"
        return Seen(Outcome.UNKNOWN, message, len(tables) - len(doubtful), len(tables), "tables", len(tables))
    return Seen(Outcome.PASS, "", len(tables), len(tables), "tables", len(tables))


def _counts_agree(connection: Connection, tables: Sequence[dict[str, object]], target: Target) -> bool:
    """Where policies do not say it plainly: the login sees the test company and about as many as there are."""
    row = connection.execute(
        sql(QUERIES / "company_sight.sql").encode(), {"company": target.test_company_id}
    ).fetchone()
    estimate = next(int(str(t["estimate"])) for t in tables if t["name"] == "companies")
    narrowed = any(t["narrowed"] for t in tables)
    visible = int(str(row["visible"])) if row else 0
    enough = visible >= 2 and visible >= min(estimate, 1000) / 2
    return row is not None and row["sees_test_company"] is True and enough and not narrowed


def clock_skew(connection: Connection) -> Seen:
    """The database's clock against ours, in the middle of the best of three round trips."""
    best: tuple[float, float] | None = None
    for _ in range(3):
        before = dt.datetime.now(dt.UTC)
        row = connection.execute("select clock_timestamp() as now").fetchone()
        after = dt.datetime.now(dt.UTC)
        now = row["now"] if row else None
        if isinstance(now, dt.datetime):
            trip_s = (after - before).total_seconds()
            skew_s = (now - before).total_seconds() - trip_s / 2
            best = min(best or (trip_s, skew_s), (trip_s, skew_s))
    if best is None:
        return Seen(Outcome.UNKNOWN, "the database did not say its time")
    skew_s = round(abs(best[1]), 3)
    if skew_s > MOST_SKEW_S:
        message = (
            f"the clocks differ by {skew_s:g} s; allowed: {MOST_SKEW_S:g} s. Which is wrong is not known: see both"
        )
        return Seen(Outcome.UNKNOWN, message, skew_s, MOST_SKEW_S, "s", 3)
    return Seen(Outcome.PASS, "", skew_s, MOST_SKEW_S, "s", 3)


def _capabilities(target: Target, companies: Path) -> list[Evidence]:
    def note(company: str) -> None:
        with companies.open("a", encoding="utf-8") as file:
            file.write(f"{company}\n")

    at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    lines = []
    for name, claimed in claims(target, note).items():
        outcome = Outcome.UNKNOWN if claimed is None else Outcome.PASS
        message = "the target could not be asked" if claimed is None else ""
        lines.append(Evidence(evidence_id(name), outcome, message, claimed, samples=1, started_at=at))
    return lines
