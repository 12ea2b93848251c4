"""`gate promote`, `gate rollback`, `gate emergency`, `gate flags step`: what they print, and their exit code."""

from __future__ import annotations

import argparse
import datetime as dt
import json
from dataclasses import replace

from gates import config
from gates.act import operations
from gates.act.flag import Order
from gates.decision.rules import Policy, RolloutPlan
from gates.deployment.target import Target
from gates.errors import CannotWork, ConfigError
from gates.operator.handover import HandoverContext, order_from
from gates.reports import attestation
from gates.reports.console import Console
from gates.reports.terminal import action_text
from gates.stages import collection
from gates.text.inert import Terminal
from gates.verdict import NOT_ROLLED_BACK, Action, Decision


def by_hand(options: argparse.Namespace, target: Target, console: Console) -> int:
    """Act, and say what became of it. Raise CannotWork where nothing could be done, but for a rollback: that is 21."""
    what = "promote" if options.command == "flags" else options.command
    plan = _plan(options, what, console)
    by = console.environ.get("USER") or console.environ.get("LOGNAME") or "operator"
    order = Order(
        plan,
        options.release or target.release,
        f"gate:{by}",
        options.reason,
        same_version=False,
        by_hand=True,
        dry_run=options.dry_run,
    )
    ordered = _handed_over(options, target, order, console) if getattr(options, "verdict", None) else order
    action = ordered if isinstance(ordered, Action) else operations.act_by_hand(target, what, ordered, console.say)
    as_json = Terminal.document(json.dumps(action.to_json(), ensure_ascii=False))
    console.result(as_json if options.json else action_text(action))
    if action.headline:
        console.annotate(action.headline, f"{action.message}\n{action.by_hand}")
        return NOT_ROLLED_BACK
    if action.result in {"failed", "not_possible"}:
        raise CannotWork(action.message)
    return Decision.HOLD.exit_code if action.holds or action.result == "baking" else 0


def _handed_over(options: argparse.Namespace, target: Target, order: Order, console: Console) -> Order | Action:
    """The order of the verdict in --from. Raise ConfigError where the key or the database is not given."""
    key = attestation.verify_key(console.environ)
    if not target.database_url:
        raise ConfigError(operations.UNSET)
    now = dt.datetime.now(dt.UTC)
    file = config.load_policy(options.policy, now.date())

    def digest(judged: Policy, release: str) -> str:
        specs = collection.with_own_checks(file, console.environ)
        return file.policy(specs, target.kind, release, deep=judged.deep, disruptive=judged.disruptive).digest

    return order_from(
        attestation.verify(options.verdict, key),
        HandoverContext(target, order.release, order.plan.flag, digest, now),
        order,
    )


def _plan(options: argparse.Namespace, what: str, console: Console) -> RolloutPlan:
    """The policy's plan. Neither a waiver that has expired nor a policy that cannot be read keeps a rollback of a flag
    that is named from happening.
    """
    today = dt.datetime.now(dt.UTC).date() if what == "promote" else dt.date.min
    try:
        plan = config.load_policy(options.policy, today).plan
    except ConfigError as error:
        if what == "promote" or not options.flag:
            raise
        console.say(f"{error}; the rollback goes on with the defaults of a policy")
        plan = RolloutPlan()
    return replace(plan, flag=options.flag) if options.flag else plan
