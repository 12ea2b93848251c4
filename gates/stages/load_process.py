"""Runs Locust as a subprocess, reads its result file, and turns every threshold into evidence. Nothing is judged here:
the load process judged the thresholds. A run without a result, or an invalid one, is unknown.
"""

import contextlib
import datetime as dt
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from gates import config, disk
from gates.decision.policy_file import Settings
from gates.deployment.http.client import HttpDoor
from gates.deployment.http.clock import Clock
from gates.deployment.identity import without_login
from gates.deployment.redaction import hidden, redact_text
from gates.deployment.sql.database import execute, session
from gates.deployment.sql.failures import in_words
from gates.deployment.target import Target
from gates.deployment.tenants.leftovers import KEPT, TIMED, Lease, sweep, take_lease, term_of
from gates.deployment.tenants.tenants import Tenants
from gates.errors import CannotWork, ConfigError, UsageError, of_file
from gates.evidence import CheckSpec, Evidence, JsonValue, Outcome, stamp
from gates.stages.context import COMPANIES
from gates.stages.load_checks import RUN_VALID, SPECS, spec_of
from gates.stages.load_options import MOST_EXACT, QUICK_MOST_S, QUICK_S, LoadOptions
from gates.stages.watchdog import Watchdog
from gates.text import characters

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = "load"
CROWDED = "crowded.txt"
"""The companies of a load on an overloaded machine: they say nothing of lateness."""
TIMEOUT_S = float(Settings().load_timeout_s)
GRACE_S = 60.0
"""Time beyond the planned duration: creating companies, waiting for canaries, removing companies."""
POLL_S = 0.2
PLANNED = "seconds "
"""Prefix of the duration in the load process's answer about a plan."""
END_S = 5.0
"""For removing the companies after SIGTERM."""
SHOWN = (
    *("model", "profile", "ended", "looks", "confidence", "notes", "facts", "recorder", "recorder_metrics"),
    *("requests", "latency", "outbox_lag", "timeline", "backlog", "agents", "expected_refusals", "database_error"),
)
"""Members of the result that are copied to the run's evidence for the reports."""
SHOWN_OF_TIME = ("independent", "stalls", "excluded_s")


def load(
    target: Target, options: LoadOptions, out: Path, timeout_s: float = Settings().load_timeout_s
) -> list[Evidence]:
    """Run the load and return evidence for every threshold. Raise ConfigError for an unusable thresholds file.
    timeout_s: of the stage, by the policy; options that plan their own time take precedence.
    """
    folder = disk.folder(out / FOLDER)
    for name in ("result.json", COMPANIES, CROWDED):  # that of an earlier run must not count
        (folder / name).unlink(missing_ok=True)
    plan = {**plan_of(target, options), "drilled": str(out / COMPANIES) if options.whole_run else ""}
    started_at = stamp(dt.datetime.now(dt.UTC))
    if not plan["base_url"]:
        return [_unknown(spec.id, "no BASE_URL was given, so there is nothing to load", started_at) for spec in SPECS]
    lease = _lease(target, plan, options)
    if not plan["url_only"]:
        with HttpDoor(target.base_url) as door:
            plan["clock_offset_s"] = Clock(door).offset_s
    disk.write(folder / "plan.json", json.dumps(plan))
    try:
        limit_s = _limit_s(plan, target, folder) if options.plans_its_time else timeout_s
        return _measure(plan, target, options, folder, started_at, limit_s)
    finally:
        if lease is not None and not options.keep_tenants:
            lease.release()
        elif lease is not None:
            _LEASES[str(out)] = lease


_LEASES: dict[str, Lease] = {}
"""Leases of this process's runs whose companies stay until `clean_up`."""

_BEGUN: dict[str, subprocess.Popen[bytes]] = {}
"""Started processes that wait for their plan, by the folder of the load."""


@contextlib.contextmanager
def begun(target: Target, out: Path) -> Iterator[None]:
    """Start a process that imports Locust while the block runs, until it calls `load`."""
    folder = str(out / FOLDER)
    _BEGUN[folder] = process = _start(target, show=sys.stderr.isatty())
    try:
        yield
    finally:
        _BEGUN.pop(folder, None)
        _end(process)


def _lease(target: Target, plan: dict[str, Any], options: LoadOptions) -> Lease | None:
    """Remove what killed runs left, and mark this one as alive; neither if the database refuses."""
    if not target.database_url or plan["url_only"]:
        return None
    with contextlib.suppress(psycopg.Error):
        sweep(target.database_url, target.test_company_id)
    if options.keep_tenants and not options.whole_run:
        return None
    lease, mark = take_lease(target.database_url, plan["run"])
    plan["lease"] = term_of(mark, target.database_url)
    return lease


def _measure(
    plan: Mapping[str, Any], target: Target, options: LoadOptions, folder: Path, started_at: str, limit_s: float
) -> list[Evidence]:
    """Run the plan in `folder` and read its result."""
    watched = Target(target.kind) if plan["url_only"] else target
    with Watchdog(watched, "the load") as dog:
        arguments = [str(folder / "plan.json"), str(folder)]
        code, text = _run(arguments, target, limit_s, show=sys.stderr.isatty(), ended=lambda: dog.fired)
    disk.write(folder / "load.log", characters.log(text))
    if code == 3:
        raise ConfigError(text.strip().splitlines()[-1] if text.strip() else "the thresholds cannot be used")
    if dog.shut:
        return dog.shut
    try:
        result = json.loads(disk.read(folder / "result.json"))
        found = evidence_of(result, compat=options.compat == "k6", started_at=started_at)
        if result.get("crowded") and (folder / COMPANIES).exists():
            disk.write(folder / CROWDED, disk.read_text(folder / COMPANIES))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        said = text.strip().rpartition("\n")[2][-300:] if code > 0 else ""
        why = f"the load run left no result (exit {code}: {said or type(error).__name__}); see {FOLDER}/load.log"
        return [_unknown(spec.id, why, started_at) for spec in SPECS]
    if options.baseline is not None:
        found += _compared(options.baseline, folder, target, started_at)
    return found


def plan_of(target: Target, options: LoadOptions) -> dict[str, Any]:
    """The plan for the load process, without secrets. It gets the login of BASE_URL from its environment."""
    text, name = "", "checklist.js"
    if options.thresholds is not None:
        text, name = _read(options.thresholds), str(options.thresholds)
    duration_s = options.duration or QUICK_S
    requests_name, requests_text = _requests(options)
    as_given = ("profile", "vus", "workers", "expect_workers", "master_host", "keep_tenants")
    of_the_policy = ("slower_percent", "failed_percent")
    of_the_target = ("release", "test_outbox", "test_dlq", "test_agents", "test_company_id")
    return {
        **{name: getattr(options, name) for name in (*as_given, *of_the_policy)},
        **{name: getattr(target, name) for name in of_the_target},
        "base_url": without_login(options.url or target.base_url),
        "url_only": bool(options.url),
        "requests_name": requests_name,
        "requests_text": requests_text,
        "thresholds_name": name,
        "thresholds_text": text,
        "run": secrets.token_hex(4),
        "rate_per_s": options.rate,
        "duration_s": duration_s,
        "most_s": max(duration_s, options.most or QUICK_MOST_S),
        "master_port": options.master_port or (5557 if options.expect_workers else 0),
        "baseline_url": without_login(target.baseline_url),
        "test_company_replays": not options.spare_test_company,
        "early_abort": not options.no_early_abort,
        "run_on": not options.no_run_on,
        "compat_k6": options.compat == "k6",
        "most_exact": options.most_exact or MOST_EXACT,
        "parent": os.getpid(),
        "lease": term_of(KEPT if options.keep_tenants else TIMED),
    }


def _read(path: Path) -> str:
    try:
        return disk.read_text(path)
    except OSError as error:
        raise ConfigError(f"{path}:1:1: {of_file(error)}; allowed: a readable text file. Correct the path") from None


def _requests(options: LoadOptions) -> tuple[str, str]:
    """Name and text of the requests of --url; options that describe one are converted to such a text."""
    one: dict[str, Any] = {"name": "url", "method": options.method, "body": options.body, "headers": {}}
    given = options.method != "GET" or options.body or options.header
    if (given or options.requests) and not options.url:
        raise UsageError("--requests, --method, --header and --body describe what is sent to --url; give it")
    if given and options.requests:
        raise UsageError("--requests names all requests; leave --method, --header and --body out")
    if options.requests is not None:
        return str(options.requests), _read(options.requests)
    for header in options.header:
        name, colon, value = header.partition(":")
        if not colon:
            raise UsageError("--header needs a name, a colon and a value, as in 'Accept: text/html'")
        one["headers"][name.strip()] = value.strip()
    return ("--url.json", json.dumps([one])) if given else ("", "")


def evidence_of(result: Mapping[str, Any], *, compat: bool, started_at: str) -> list[Evidence]:
    """Evidence from a result document. Raise KeyError or TypeError if it is not one."""
    common: dict[str, Any] = {"started_at": started_at, "duration_ms": float(result["elapsed_s"]) * 1000.0}
    details: dict[str, JsonValue] = {name: result[name] for name in SHOWN}
    valid = bool(result["valid"])
    reasons = "; ".join(result["invalid_reasons"])
    seen = f"{result['facts']['requests']} requests in {result['elapsed_s']:.1f} s, {result['ended']}"
    if result["recorder_metrics"]:
        seen += f"; not exact but {result['recorder']}: {', '.join(result['recorder_metrics'])}"
    run = Evidence(
        RUN_VALID,
        Outcome.PASS if valid else Outcome.UNKNOWN,
        seen if valid else f"{reasons} ({seen})",
        observed="valid" if valid else "not valid",
        limit="valid",
        samples=int(result["facts"]["requests"]),
        details=details,
        **common,
    )
    failed = _most_failed(result["requests"])
    return [run, *(_judged(one, failed, valid=valid, compat=compat, common=common) for one in result["judgements"])]


def _most_failed(requests: Sequence[Mapping[str, Any]]) -> str:
    """What most of the failed requests were, and what became of them: `54 of 60 were POST /events, answered 404`."""
    failed = [one for one in requests if one["failed"]]
    if not failed:
        return ""
    most = max(failed, key=lambda one: int(one["count"]))
    told = f"answered {most['status']}" if most["status"] else str(most["error"])
    return f"{most['count']} of {sum(int(one['count']) for one in failed)} failed requests were {most['name']}, {told}"


def _judged(one: Mapping[str, Any], failed: str, *, valid: bool, compat: bool, common: Mapping[str, Any]) -> Evidence:
    verdict = Outcome(one["verdict"])
    k6 = "pass" if one["k6_passes"] else "fail"
    names = ("source", "why", "low", "high", "method", "needed", "margin", "recorder", *SHOWN_OF_TIME)
    message = str(one["message"]) + (f" (k6 says: {k6})" if compat else "")
    if one["why"] == "switched off":
        message = f"unknown (switched off): {message}"
    trend = one["metric"].partition("{")[0]
    if failed and verdict is not Outcome.PASS and one["metric"] == "http_req_failed":
        message = f"{message}; {failed}"
    return Evidence(
        str(one["check"]),
        verdict,
        message,
        observed=one["observed"],
        limit=one["limit"],
        unit="ms" if (trend.startswith("http_req_") and trend != "http_req_failed") or trend.endswith("_ms") else "",
        samples=int(one["samples"]),
        blocked_by=RUN_VALID if verdict is Outcome.UNKNOWN and not valid else "",
        details={"k6": k6, **{name: one[name] for name in names}},
        **common,
    )


def clean_up(target: Target, out: Path) -> str:
    """Remove the companies of a run with --keep-tenants; audit rows stay. Returns why that was refused, or nothing."""
    listing = out / FOLDER / COMPANIES
    companies = disk.read_text(listing).split() if listing.exists() else []
    try:
        if companies and target.database_url:
            with session(target.database_url) as connection:
                ours = Tenants(connection, FOLDER, list(companies))
                # a login that may create none may remove none either
                rows = execute(connection, "select id from public.companies where id = any(%s::uuid[])", companies)
                ours.remove([str(row["id"]) for row in rows])
                ours.sweep()
        lease = _LEASES.pop(str(out), None)
        if lease is not None:
            lease.release()
    except psycopg.Error as error:
        said = in_words(error)
        return f"the companies in {FOLDER}/companies.txt were not removed: {said}. Delete them by hand"
    return ""


def checks_of(target: Target, options: LoadOptions, out: Path) -> tuple[CheckSpec, ...]:
    """The checks for these options: the checklist's, or those of the thresholds file, all of them required. Raise
    ConfigError (file:line:column) for an unusable file.
    """
    if options.thresholds is None and not options.url:
        return SPECS
    folder = disk.folder(out / FOLDER)
    disk.write(folder / "plan.json", json.dumps(plan_of(target, options)))
    known = {spec.id: spec for spec in SPECS}
    ids = dict.fromkeys(line for line in _asked(target, folder) if line.startswith("load/"))
    own = [
        spec_of(one.partition("/")[2], f"{one} keeps its threshold.", "A limit of the team is broken.") for one in ids
    ]
    return (SPECS[0], *(known.get(one.id, one) for one in own))


def _unknown(check: str, why: str, started_at: str) -> Evidence:
    return Evidence(check, Outcome.UNKNOWN, why, started_at=started_at)


def _asked(target: Target, folder: Path) -> list[str]:
    """The load process's answer about the plan in the folder. Raise ConfigError if the plan is unusable."""
    code, text = _run(["--checks", str(folder / "plan.json")], target, GRACE_S, show=False)
    lines = text.strip().splitlines()
    if code == 3:
        (folder / "plan.json").unlink()  # what was refused may be a secret
        raise ConfigError(lines[-1] if lines else "the thresholds cannot be used")
    return lines


def _limit_s(plan: Mapping[str, Any], target: Target, folder: Path) -> float:
    """How long the load may take: scenarios and stages determine it themselves."""
    planned = next((line for line in _asked(target, folder) if line.startswith(PLANNED)), f"{PLANNED}0")
    most_s = max(float(plan["most_s"]), float(planned.removeprefix(PLANNED)))
    return most_s + 2 * GRACE_S + (30.0 if plan["expect_workers"] else 0.0)


def _run(
    arguments: Sequence[str], target: Target, limit_s: float, *, show: bool, ended: Callable[[], bool] = lambda: False
) -> tuple[int, str]:
    """Run `python -m loadtests`, at most `limit_s` or until it must end. Returns its exit code (-1: it was ended) and
    its output without secrets.
    """
    process = _BEGUN.pop(arguments[-1], None) or _start(target, show=show)
    told: bytes | None = json.dumps(list(arguments)).encode()
    output, code, deadline = b"", None, time.monotonic() + limit_s
    try:
        while code is None and time.monotonic() < deadline and not ended():
            with contextlib.suppress(subprocess.TimeoutExpired):
                given, told = told, None
                output, _ = process.communicate(given, timeout=min(POLL_S, limit_s))
                code = process.returncode
    finally:
        _end(process)
    return -1 if code is None else code, redact_text(output.decode("utf-8", "replace"), hidden(target))


def _start(target: Target, *, show: bool) -> subprocess.Popen[bytes]:
    """Start `python -m loadtests`, which waits for its arguments."""
    environ = config.environment_of(target, config.process_environment()) | {"PYTHONUNBUFFERED": "1"}
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "loadtests", "--when-told"],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if show else subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise CannotWork(f"the load process cannot be started: {error}; allowed: python -m loadtests") from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its workers, if they still run."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(timeout=END_S)
    for pipe in filter(None, (process.stdin, process.stdout)):
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


def _compared(baseline: Path, folder: Path, target: Target, started_at: str) -> list[Evidence]:
    """Evidence from the comparison with an earlier run; unknown without samples of that."""
    code, text = _run(["--compare", str(baseline), str(folder)], target, GRACE_S, show=False)
    try:
        found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [Evidence.from_json({**one, "started_at": started_at}) for one in found]
    except (ValueError, TypeError, KeyError, RecursionError):
        return [_unknown("load/baseline/p95", f"the comparison with {baseline} failed (exit {code})", started_at)]
