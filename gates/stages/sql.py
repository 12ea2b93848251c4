"""The SQL stage: spot checks and row-level security; in a whole run also the alerts, before and after the load."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg

from gates import disk
from gates.decision.rules import QUEUE_STAGE
from gates.deployment.tenants.leftovers import at_work
from gates.evidence import TargetKind
from gates.stages.context import COMPANIES, Context, Progress, StageReport
from gates.stages.distance import stretched
from gates.stages.load_process import CROWDED, FOLDER
from gates.stages.suite import SuiteRun, begun, looked, run

DATA = ("sql/",)
ALERTS = ("alert/", "queue/", "cohort/")


def sql(context: Context, prefixes: Sequence[str] = DATA, *, name: str = "sql") -> list[StageReport]:
    """Run the SQL checks with ids under `prefixes`. Excludes the companies that this run has created so far."""
    return [run(_suite(context, prefixes, name), context)]


def alerts(context: Context) -> list[StageReport]:
    """Run only the alert rules."""
    return sql(context, ALERTS, name="alerts")


@contextlib.contextmanager
def data(context: Context, when: str = "") -> Iterator[Callable[[], list[StageReport]]]:
    """The SQL checks and alert rules as a callable; its process is started now, beside the block. Not while another
    gate runs: its dead letters and deliveries would be blamed on the release.

    when: "before" or "after" the load of a whole run; empty for the one look of another. What is seen before must be
    seen again after it: a look that did not happen is then unknown.
    """
    crowded = f"--crowded-companies={context.out / FOLDER / CROWDED}"
    more = {"before": ("--round=before",), "after": (crowded,)}.get(when, ())
    asked = _suite(context, (*DATA, *ALERTS), f"data {when}".rstrip(), *more)
    if not asked.expected:
        yield list
        return
    with begun(asked, context) as one:
        yield lambda: [_beside_others(asked, context, again=when == "before") or looked(one, context)]


def _beside_others(asked: SuiteRun, context: Context, *, again: bool) -> StageReport | None:
    """A skipped look at the data because another gate runs; None if none does. again: it is seen again later."""
    others = _others(context)
    if not others:
        return None
    reason = (
        f"another gate is at work here: it has {len(others)} companies, such as {others[0]}. Run again when it ended"
    )
    name, expected = asked.name, asked.expected
    if not again:
        context.account_for(expected, reason, already=len(context.lines()))
    context.progress(Progress(name, unknown=len(expected), expected=len(expected), done=True, error=reason))
    return StageReport(name, 0.0, 0, reason)


def _others(context: Context) -> list[str]:
    """Companies of other gates; none if the database does not tell."""
    target = context.target
    lists = [context.companies, context.out / FOLDER / COMPANIES]
    own = {line for path in lists if not disk.missing(path) for line in disk.read_text(path).split()}
    if not target.database_url:
        return []
    with contextlib.suppress(psycopg.Error):  # every check of the following look then reports it
        return at_work(target.database_url, own, target.test_company_id)
    return []


def _suite(context: Context, prefixes: Sequence[str], name: str, *more: str) -> SuiteRun:
    """The subprocess that runs these checks, with the folders, manifest and memory of gate.yaml."""
    patterns = context.only or tuple(f"{prefix}*" for prefix in prefixes)
    expected = [s for s in context.applicable(prefixes) if not s.id.startswith(QUEUE_STAGE)]
    settings = context.settings
    context.companies.touch()
    options = [*(f"--only={pattern}" for pattern in patterns), *more, f"--exclude-companies={context.companies}"]
    options += [f"--spot-folder={path}" for path in settings.spot_folders]
    options += [f"--alert-folder={path}" for path in settings.alert_folders]
    plan = settings.rollout
    options += [f"--steps={','.join(map(str, plan.steps))}", f"--flag={plan.flag}", f"--state={_memory(context)}"]
    options += [f"--cohorts={json.dumps(dataclasses.asdict(plan.cohorts))}", f"--bake-minutes={plan.bake_minutes}"]
    if context.scope.queue:
        options.append(f"--queue={context.scope.queue}")
    if settings.require_checkpoint:
        options.append("--require-checkpoint")
    if settings.manifest is not None:
        options.append(f"--manifest={settings.manifest}")
    limit_s = stretched(context, settings.sql_timeout_s)
    return SuiteRun(name, "sql_checks", expected, limit_s, tuple(options), http=False)


def _memory(context: Context) -> Path:
    """Where the suite remembers how far the audit trail was verified, one file per database; absolute. A reference that
    was started for this run never returns: its memory stays with the results.
    """
    own = context.target.kind is TargetKind.REFERENCE
    return (context.out / "state" if own else context.settings.state).resolve()
