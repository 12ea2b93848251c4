"""The watch: the sequence of one round, and rounds until a signal ends them. A round reads the open incidents, looks,
decides, acts only if asked to, records itself, and then notifies.
"""

import datetime as dt
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gates import disk, past_decisions, record
from gates.act.flag import FlagState, Order, look_at
from gates.act.rollout import act
from gates.decision.decide import weigh
from gates.decision.policy_file import PolicyFile
from gates.decision.rules import Policy
from gates.decision.unreachable import cause
from gates.deployment.identity import identity
from gates.deployment.redaction import hidden, redact_text, scrubbing
from gates.deployment.target import Target
from gates.errors import CannotWork, NotRolledBack
from gates.evidence import CheckSpec, Evidence, TargetKind, stamp
from gates.evidence_file import read_log
from gates.past_decisions import PastDecision
from gates.reports import webhook
from gates.reports.terminal import action_text
from gates.stages import passed
from gates.stages.context import Context, Progress, silent
from gates.verdict import NOT_ROLLED_BACK, SETTLED, Action, Decision, Verdict
from gates.watch import history, look
from gates.watch.history import History, Notified
from gates.watch.incidents import Patience, WatcherHealth, acted, fold, harmful, health_of
from gates.watch.look import Drills
from gates.watch.rounds import Change, Incident, Reading, Round, readings_of
from gates.watch.text import slack

RECENT = dt.timedelta(minutes=10)
"""How far back a round reads its history, to see when the short drill last ran."""
STATE_OF = {Decision.PROMOTE: "good", Decision.HOLD: "doubtful", Decision.ROLLBACK: "failing"}
COMPANIES_KEPT = dt.timedelta(hours=25)
"""A little longer than the longest window of an alert rule, in which rows of earlier rounds must not count."""
MOST_COMPANIES = 5000
COMPANIES = "companies.txt"
"""The first file of a round, and the last one that goes: it says that a folder beside the history is the watch's."""


def utc_now() -> dt.datetime:
    """The clock of a watch."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True)
class Watch:
    """What is watched, and how. rollback: whether a grave and lasting failure rolls the flag back."""

    target: Target
    policy_file: PolicyFile
    catalogue: tuple[CheckSpec, ...]
    history: Path
    interval_s: float = 300.0
    drills: Drills = Drills.AUTO
    patience: Patience = field(default_factory=Patience)
    rollback: bool = False
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    progress: Callable[[Progress], None] = silent
    warn: Callable[[str], None] = lambda _text: None
    now: Callable[[], dt.datetime] = utc_now

    @property
    def name(self) -> str:
        """The target's name in the history."""
        return identity(self.target)

    def beside(self, what: str) -> Path:
        """A file or folder that belongs to the history."""
        return self.history.with_name(f"{self.history.stem}-{what}")


@dataclass(frozen=True, slots=True)
class FinishedRound:
    """A round, the state of the watcher before it, the error of Slack."""

    round: Round
    health: WatcherHealth
    slack_error: str = ""


def one_round(watch: Watch, jump_s: float = 0.0) -> FinishedRound | None:
    """Make a round; None if another watcher is making one. Raise CannotWork if it cannot be recorded."""
    with history.turn(watch.history) as mine:
        if not mine:
            return None
        started = watch.now()
        past = history.read(watch.history, watch.name, started - RECENT)
        alive = health_of(past.last, past.good, started, jump_s)
        plan = _plan(watch, past, started)
        flag = look_at(watch.target.database_url, _policy(watch, plan, "").rollout.flag) if watch.rollback else None
        context, release = _look(watch, plan, past.last_number + 1, started)
        policy = _policy(watch, plan, release)
        passed.passed(context, policy)
        made = _judged(
            watch, past, alive, plan, list(read_log(context.evidence, run=context.run_id).evidence), policy, started
        )
        if watch.rollback:
            made = _rolled_back(watch, past, made, policy, flag)
        try:
            error = _kept(watch, made)
            slack_error = _tell(watch, past, made)
        except BaseException as ended:  # even on a signal: the flag may still be on
            if made.exit_code == NOT_ROLLED_BACK:
                raise NotRolledBack(made.changes[-1].message) from ended
            raise
        if error:
            raise NotRolledBack(f"{made.changes[-1].message}; {error}") if made.exit_code == NOT_ROLLED_BACK else error
        return FinishedRound(made, alive, slack_error)


def rounds(
    watch: Watch,
    each: Callable[[FinishedRound | None], None],
    sleep: Callable[[float], None] = time.sleep,
    most: int = 0,
) -> None:
    """Make a round per interval until a signal (`most` above 0: so many rounds). A round that could not be recorded is
    reported, and the next one tries again; a round that took too long delays the next.
    """
    due = time.monotonic()
    wall, steady = watch.now(), due
    made = 0
    while True:
        moved_s = (watch.now() - wall).total_seconds() - (time.monotonic() - steady)
        wall, steady = watch.now(), time.monotonic()
        try:
            each(one_round(watch, moved_s))
        except (CannotWork, NotRolledBack, OSError) as error:
            if isinstance(error.__cause__, BaseException) and not isinstance(error.__cause__, Exception):
                raise  # a signal interrupted its rollback
            watch.warn(f"this round could not be made: {error}")
        made += 1
        if most and made >= most:
            return
        now = time.monotonic()
        due = max(due + watch.interval_s, now)
        sleep(due - now)


# --- looking -----------------------------------------------------------------------------------------------------


def _plan(watch: Watch, past: History, now: dt.datetime) -> look.RoundPlan:
    drilled = (r for r in reversed(past.rounds) if any(c.startswith(look.PROOF) for c in r.readings))
    last = next(drilled, None)
    since_s = (now - dt.datetime.fromisoformat(last.finished_at)).total_seconds() if last else None
    return look.plan(watch.catalogue, watch.target, look.drills_for(watch.target, watch.drills), since_s)


def _policy(watch: Watch, plan: look.RoundPlan, release: str) -> Policy:
    kind = TargetKind.PRODUCTION
    policy = watch.policy_file.policy(watch.catalogue, kind, watch.target.release or release, deep=False)
    return replace(policy, catalogue=tuple(sorted(plan.checks, key=lambda s: s.id)))


def _look(watch: Watch, plan: look.RoundPlan, number: int, now: dt.datetime) -> tuple[Context, str]:
    """The evidence of a round, which stays beside the history until the next one, and the release that was seen."""
    out = watch.beside("last")
    try:
        disk.emptied(out, mark=COMPANIES)
        earlier = _companies(watch, now)
        disk.write(out / COMPANIES, "".join(f"{c}\n" for c in earlier))
    except OSError as error:
        raise CannotWork(f"{error}; allowed: files to read and to write. Move it away, or correct --history") from error
    context = Context(
        target=watch.target,
        settings=watch.policy_file.settings,
        out=out.resolve(),
        run_id=f"w{now:%d%H%M}{number % 1000}",
        catalogue=plan.checks,
        scope=watch.policy_file.scope,
        environ=watch.environ,
        progress=watch.progress,
    )
    with scrubbing(context.out, hidden(watch.target)):
        release = look.look(context, plan)
    born = [c for c in disk.read_text(context.companies).split() if c not in set(earlier)]
    if born:
        record.write(watch.beside("companies") / f"{number}.txt", "".join(f"{c}\n" for c in born))
    return context, release


def _companies(watch: Watch, now: dt.datetime) -> list[str]:
    """Companies of earlier rounds whose traces may still be in a window; older lists are removed."""
    found: list[str] = []
    for path in sorted(disk.folder(watch.beside("companies")).glob("[0-9]*.txt"), key=lambda p: p.stat().st_mtime):
        if dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC) < now - COMPANIES_KEPT:
            path.unlink(missing_ok=True)
        else:
            found += disk.read_text(path).split()
    return found[-MOST_COMPANIES:]


# --- judging -----------------------------------------------------------------------------------------------------


def _judged(
    watch: Watch,
    past: History,
    alive: WatcherHealth,
    plan: look.RoundPlan,
    evidence: list[Evidence],
    policy: Policy,
    started: dt.datetime,
) -> Round:
    verdict = weigh(evidence, policy, watch.now(), shut=cause(evidence))  # a round is no gate, and never promotes
    exempt = {e.check for e in verdict.not_applicable}
    checks = [s.id for s in plan.checks if s.id not in exempt]
    readings = readings_of(checks, verdict.findings, evidence)
    last = past.last
    folded = fold(
        last.incidents if last else (),
        last.readings if last else {},
        readings,
        started,
        watch.patience,
        in_a_row=not alive.down_s,
        known=[s.id for s in watch.catalogue],
    )
    changes = folded.changes
    if alive.down_s or alive.clock:
        changes = (Change("watcher down", "watch", "warn", alive.said, stamp(started)), *changes)
    state, reason = _state(verdict, folded.incidents, readings)
    return Round(
        past.last_number + 1,
        stamp(started),
        stamp(watch.now()),
        watch.name,
        state,
        redact_text(reason, hidden(watch.target)),
        policy.release,
        watch.interval_s,
        alive.down_s,
        alive.clock,
        plan.drills.value,
        readings,
        plan.not_due,
        folded.incidents,
        changes,
    )


def _state(verdict: Verdict, incidents: tuple[Incident, ...], readings: Mapping[str, Reading]) -> tuple[str, str]:
    """The round's state and sentence. A check that was seen failing and not looked at since is not good."""
    state = STATE_OF[verdict.decision]
    left = [i for i in incidents if i.kind == "failing" and i.level != "note" and i.check not in readings]
    if state == "good" and left:
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        return "doubtful", f"{left[0].check} was seen failing at {left[0].seen_at} and not looked at since{more}"
    return state, verdict.reason


# --- acting, writing down, telling -------------------------------------------------------------------------------


def _rolled_back(watch: Watch, past: History, made: Round, policy: Policy, seen: FlagState | None) -> Round:
    """The round after its rollback, if one is due. This code only ever switches the flag off."""
    due = harmful(made.incidents, made.readings, watch.patience.confirm)
    if not due:
        return made
    first = next((i for i in due if made.reason.startswith(f"{i.check} ")), due[0])  # as the round cites it
    reason = f"watch: {first.check} was seen failing in {first.harm} rounds in a row: {first.message}"[:500]
    since = seen.at if seen else ""
    order = Order(
        policy.rollout, policy.release, "replaygate", reason, seen, since=since, good_for_min=policy.max_age_minutes
    )
    folder = watch.policy_file.settings.state_of(watch.name)
    release, run_id = policy.release or past_decisions.last_named(folder), secrets.token_hex(4)

    def note(action: Action) -> None:
        told = PastDecision.by_hand(action, reason, watch.target.kind.value, watch.now(), release, run_id=run_id)
        try:
            past_decisions.remember(folder, told)
        except OSError as error:
            watch.warn(f"the target's history could not be written: {error}. Make --state writable")

    note(Action("rollback", result="failed", flag="unknown"))  # in case the watch is killed meanwhile
    action: Action = act(Verdict(Decision.ROLLBACK, reason), order, watch.target.database_url, tell=watch.warn)
    action = replace(action, message=redact_text(action.message, hidden(watch.target)))
    note(action)
    settled = action.result in SETTLED
    if not settled:  # at once: the round itself may not find room on disk
        watch.warn(action_text(action))
    kind = "rolled back" if settled else "not rolled back"
    again = past.last is not None and past.last.action.get("result") == action.result  # already recorded
    message = "; ".join(filter(None, (action.headline, action.message or action.result, reason, action.by_hand)))
    change = Change(kind, first.check, "note" if again else "page", message, made.at)
    return replace(
        made,
        incidents=acted(made.incidents, {i.check for i in due}) if settled else made.incidents,
        changes=(*made.changes, change),
        action=action.to_json(),
        finished_at=stamp(watch.now()),
    )


def _kept(watch: Watch, made: Round) -> CannotWork | None:
    """Write the round to the history. Returns a failure instead of raising, so that notifications are still sent."""
    try:
        history.append(watch.history, made.line())
        history.tidy(watch.history, watch.now())
    except CannotWork as error:
        return error
    except OSError as error:
        return CannotWork(f"{watch.history}: {error}; allowed: a file that can be written. Correct --history")
    return None


def _tell(watch: Watch, past: History, made: Round) -> str:
    """Post what changed, and what could not be posted before; returns an empty string, or why it failed."""
    changes = (*past.untold, *(c for c in made.changes if c.told))
    if not changes:
        return ""
    url = watch.target.slack_webhook_url
    error = webhook.post(url, slack(made, changes)) if url else ""
    if error:
        watch.warn(f"Slack was not told: {error}; see SLACK_WEBHOOK_URL. The next round tries again")
        return error
    try:
        history.append(
            watch.history, Notified(watch.name, made.number, stamp(watch.now()), "slack" if url else "nobody").line()
        )
    except CannotWork as failed:
        watch.warn(f"the next round will announce this again: {failed}")
    return ""
