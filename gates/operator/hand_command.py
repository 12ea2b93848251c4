"""`gate promote`, `rollback`, `emergency`, `resume`, `flags step`, `flags enable`: options, output, exit code."""

import argparse
import contextlib
import datetime as dt
import json
import secrets
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from gates import config, past_decisions
from gates.act import operations
from gates.act.flag import Order
from gates.act.rollback import in_doubt
from gates.decision.names_file import NamesError, NamesUnread
from gates.decision.policy_file import Settings
from gates.decision.rules import Policy, RolloutPlan
from gates.deployment.identity import identity
from gates.deployment.redaction import redact_text
from gates.deployment.sql.libpq import NEEDED as OF_LIBPQ
from gates.deployment.sql.libpq import PLACES
from gates.deployment.target import Target
from gates.errors import CannotWork, ConfigError, NotRolledBack, first_line
from gates.inputs import options as shared
from gates.operator.handover import HandoverContext, order_from
from gates.past_decisions import PastDecision
from gates.reports import attestation
from gates.reports.console import Console
from gates.reports.terminal import action_text
from gates.stages import collection
from gates.stages.preflight import release_now
from gates.text.inert import Terminal
from gates.verdict import NOT_ROLLED_BACK, Action, Decision

ALONE = ("rollback", "emergency")
"""Commands that need only the database."""
BACK = ("resume", "enable")
"""Commands after which a rollback is over."""
NEEDED = ("DATABASE_URL", *OF_LIBPQ)
"""Variables that a rollback cannot do without."""
LATEST_S = 5.0
"""How long the final line waits for the first one, which may still be on its way to a slow disk."""
NAMING = ("DATABASE_URL", "BASE_URL", "GATE_TARGET", *PLACES.values())
"""Variables that identify the target."""


def add_arguments(made: argparse.ArgumentParser, name: str) -> None:
    """The options of the command of that name; those of `gate flags` have their flag already."""
    shared.policy(made)
    shared.as_json(made)
    shared.dry_run(made)
    made.add_argument("--reason", required=True, type=shared.REASON, help="why; it goes into the audit row")
    shared.actor(made)
    if name in {"promote", *ALONE, *BACK}:
        shared.state(made, looked_at=name not in ALONE)  # no file that stands there prevents a rollback
    if name not in {"step", "enable"}:
        made.add_argument("--flag", type=shared.FLAG, metavar="KEY", help="the flag (default: the policy's)")
    made.add_argument(
        "--release", type=shared.RELEASE, default="", metavar="R", help="the release it is about (default: RELEASE)"
    )
    if name == "promote":
        made.add_argument(
            "--from",
            dest="verdict",
            type=Path,
            metavar="DIR",
            help="act on the signed promote verdict in DIR, for its release and target alone (GATE_VERIFY_KEY)",
        )


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """Act and report the result. Raise CannotWork if nothing could be done; for a rollback that is exit code 21. A
    rollback needs only the database: a mistake in another variable does not prevent it.
    """
    alone = options.command in ALONE
    what = {"step": "promote", "enable": "enable"}[options.do] if options.command == "flags" else options.command
    plan, settings, doubt = _policy(options, what, console)  # first: the names are known only afterwards
    target = _target(console) if alone else config.load_target(console.environ)
    if not target.database_url:  # nothing could be carried out, so there is nothing to record
        raise ConfigError(operations.UNSET)
    order = Order(
        replace(plan, flag=options.flag) if options.flag else plan,
        options.release or target.release,
        f"gate:{options.actor or config.actor(console.environ)}",
        options.reason,
        same_version=False,
        by_hand=True,
        dry_run=options.dry_run,
        enable_at=getattr(options, "at", None),
    )
    ordered = _handed_over(options, target, order, console) if getattr(options, "verdict", None) else order
    counts = what == "emergency" or (what in {"rollback", *BACK} and order.plan.flag == plan.flag)
    note = _Note(secrets.token_hex(4), what, order, settings, target, console)
    unsettled = Action(what, result="failed", flag="unknown")
    if counts and alone:  # a killed one was ordered all the same; a disk that hangs must not delay a rollback
        threading.Thread(target=note.write, args=(unsettled,), name="note", daemon=True).start()
    try:
        action = ordered if isinstance(ordered, Action) else operations.act_by_hand(target, what, ordered, console.warn)
    except NotRolledBack:
        if counts:
            note.write(unsettled)
        raise
    if doubt:
        action = in_doubt(action, order.plan.flag, doubt)
    try:
        if counts and not (what in BACK and action.result != "done"):
            note.write(action)
    except BaseException as ended:  # even on a signal: the flag may still be on
        if action.headline:
            raise NotRolledBack(f"{action.headline}\n{action.by_hand}") from ended
        raise
    as_json = Terminal.document(json.dumps(action.to_json(), ensure_ascii=False))
    console.result(as_json if options.json else action_text(action))
    if action.headline:
        console.annotate(action.headline, f"{action.message}\n{action.by_hand}")
        return NOT_ROLLED_BACK
    if action.result in {"failed", "not_possible"}:
        raise CannotWork(action.message)
    return Decision.HOLD.exit_code if action.holds or action.result == "baking" else 0


def _target(console: Console) -> Target:
    """The database of a rollback, and the release for its audit row, unless invalid. Raise ConfigError."""
    needed = {name: text for name, text in console.environ.items() if name in NEEDED}
    target = config.load_target(needed)
    try:
        return config.load_target({**needed, "RELEASE": console.environ.get("RELEASE", "")})
    except ConfigError as error:
        console.warn(f"{error}. The rollback goes on, and its audit row names no release")
        return target


def _handed_over(options: argparse.Namespace, target: Target, order: Order, console: Console) -> Order | Action:
    """The order of the verdict in --from. Raise ConfigError without the key."""
    key = attestation.verify_key(console.environ)
    now = dt.datetime.now(dt.UTC)
    file = config.load_policy(options.policy, now.date(), options.state)
    try:
        past = past_decisions.read(file.settings.state_of(identity(target)))
    except OSError as error:
        raise CannotWork(f"{error}; allowed: a history in the state folder that can be read. Correct --state") from None

    def digest(judged: Policy, release: str) -> str:
        specs = collection.with_own_checks(file, console.environ)
        return file.policy(specs, target.kind, release, deep=judged.deep, disruptive=judged.disruptive).digest

    return order_from(
        attestation.verify(options.verdict, key),
        HandoverContext(target, order.release, order.plan.flag, digest, now, release_now, past),
        order,
    )


@dataclass(frozen=True, slots=True)
class _Note:
    """The history line: from then on no older promote or rollback counts. Errors in it never stop the command."""

    run_id: str
    what: str
    order: Order
    settings: Settings
    target: Target
    console: Console
    lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, action: Action) -> None:
        """Write it, replacing the one before."""
        if self.order.dry_run:
            return
        if not self.lock.acquire(timeout=LATEST_S):
            self.console.warn("the target's history was not written: its disk does not answer. Name another --state")
            return
        try:
            past_decisions.remember(*self._line(action))
        except Exception as error:  # noqa: BLE001  -- no disk, no memory: the action stands, and its result is shown
            self.console.warn(f"the target's history could not be written: {first_line(error)}. Make --state writable")
        finally:
            self.lock.release()

    def _line(self, action: Action) -> tuple[Path, PastDecision]:
        target, environ = self.target, self.console.environ
        with contextlib.suppress(ConfigError):
            target = config.load_target({name: environ.get(name, "") for name in NAMING})
        is_back = self.what in BACK
        then = ": run the gate again" if is_back else ""
        reason = redact_text(f"{action.kind} by hand: {self.order.reason}{then}", self.console.hide)
        kind = target.kind.value if environ.get("GATE_TARGET", "").strip() else ""  # else it may be of any kind
        folder = self.settings.state_of(identity(target))
        release = self.order.release or past_decisions.last_named(folder)
        decision = Decision.HOLD if is_back else Decision.ROLLBACK
        now = dt.datetime.now(dt.UTC)
        return folder, PastDecision.by_hand(action, reason, kind, now, release, decision, self.run_id)


def _policy(options: argparse.Namespace, what: str, console: Console) -> tuple[RolloutPlan, Settings, str]:
    """The policy's plan and settings; last, why it is unknown whether the policy gives other names. Neither an expired
    waiver nor an unreadable policy prevents the rollback of a flag that is named.
    """
    forward = what in {"promote", "enable", "resume"}
    today = dt.datetime.now(dt.UTC).date() if forward else dt.date.min
    try:
        file = config.load_policy(options.policy, today, getattr(options, "state", None))
    except NamesError as error:
        if what == "promote":
            raise
        raise NotRolledBack(f"{error}; nothing was done: which objects of the target are meant is not known") from None
    except Exception as error:  # a policy may be wrong in any way
        if forward or not options.flag:
            raise
        console.warn(f"{first_line(error)}; the rollback goes on with the defaults of a policy")
        sure = isinstance(error, ConfigError) and not isinstance(error, NamesUnread)
        settings = replace(Settings(), **({"state": options.state} if options.state else {}))
        return RolloutPlan(options.flag), settings, "" if sure else first_line(error)
    return file.plan, file.settings, ""
