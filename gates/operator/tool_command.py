"""`gate sign`, `replay`, `budget`, `flags`: the checklist's tools for operators."""

import argparse
import dataclasses
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

from gates import config
from gates.act import operations
from gates.act.operations import Body
from gates.deployment.dialect.current import current
from gates.deployment.redaction import redact
from gates.deployment.target import Target
from gates.errors import UsageError
from gates.inputs import options as shared
from gates.inputs import values
from gates.inputs.values import option
from gates.operator import hand_command
from gates.reports.console import Console
from gates.reports.terminal import cell, table
from gates.text.foreign import json_value
from gates.text.inert import Terminal
from gates.verdict import Decision

MOST_ITEMS = 50
"""Limits of one replay (contract, section 2)."""
OF_A_REPLAY = frozenset({"status", "replay_run_id", "target_count", "items"})
"""Members of a success, of which a deployment has at least one. A login page answers 200, too."""
DO = {
    "step": "one step up, as `gate promote --flag KEY`",
    "enable": "a flag that is off, on for a share of the tenants",
}


def add_arguments(made: argparse.ArgumentParser, name: str) -> None:
    shared.as_json(made)
    if name in {"sign", "replay"}:
        _body_options(made)
    elif name == "budget":
        made.add_argument("-c", "--company", type=shared.COMPANY, metavar="UUID", help="one tenant")
        made.add_argument("--daily", type=shared.LIMIT, metavar="N", help="set the daily limit")
        made.add_argument("--monthly", type=shared.LIMIT, metavar="N", help="set the monthly limit")
    else:
        words = made.add_subparsers(dest="do", metavar="step|enable")
        for do, said in DO.items():
            one = words.add_parser(do, help=said, description=said, epilog=made.epilog)
            one.add_argument("flag", type=shared.FLAG, metavar="KEY", help="the flag")
            if do == "enable":
                percent = option(values.whole(1, 100))
                one.add_argument("--at", type=percent, required=True, metavar="PERCENT", help="of the tenants")
            hand_command.add_arguments(one, do)
            shared.general(one, nested=True)


def _body_options(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add("-c", "--company", type=shared.COMPANY, metavar="UUID", help="the tenant (TEST_COMPANY_ID)")
    add("-m", "--max", type=option(values.whole(1, MOST_ITEMS)), metavar="N", help="at most so many items, 1 to 50")
    add("-k", "--key", type=option(values.idempotency_key), metavar="KEY", help="the idempotency key")
    add("-d", "--dry-run", action="store_true", help="show what would be replayed")
    add("-f", "--force", action="store_true", help="ignore retry_after")
    add("-v", "--verbose", action="store_true", help="also print the body and the signature, on stderr")
    add("--v2", action="store_true", help="sign the time, too: a captured request is soon worthless")


def carry_out(options: argparse.Namespace, console: Console) -> int:
    if getattr(options, "do", None):
        return hand_command.carry_out(options, console)
    config.load_policy(None, dt.date.min)  # the names alone
    target = config.load_target(console.environ)
    if getattr(options, "company", None):
        options.company = _id(options.company)
    return {"sign": _sign, "replay": _replay, "budget": _budget, "flags": _flags}[options.command](
        options, target, console
    )


def _id(company: str) -> str:
    """A company's id, of the type that the deployment uses. Raise UsageError."""
    try:
        return values.id_of_type(company, current().id_type("company"))
    except values.Unfit as unfit:
        raise UsageError(f"-c is {company[:80]!a}; allowed: {unfit}. Correct -c") from None


def _body(options: argparse.Namespace, target: Target) -> Body:
    company = options.company or target.test_company_id
    if not company:
        raise UsageError("no company: -c is not given and TEST_COMPANY_ID is not set; allowed: a UUID. Give -c")
    return Body(company, options.max, options.key, options.dry_run, options.force)


def _seconds(options: argparse.Namespace) -> int | None:
    return int(dt.datetime.now(dt.UTC).timestamp()) if options.v2 else None


def _sign(options: argparse.Namespace, target: Target, console: Console) -> int:
    signed = operations.sign(target, _body(options, target), _seconds(options))
    if options.json:
        console.result(Terminal.document(json.dumps(dataclasses.asdict(signed), ensure_ascii=False)))
        return 0
    if options.verbose:
        console.say(Terminal.of_lines((f"body:      {signed.body}", f"signature: {signed.signature}")))
    console.result(signed.curl)
    return 0


def _replay(options: argparse.Namespace, target: Target, console: Console) -> int:
    answer = operations.replay(target, _body(options, target), _seconds(options))
    if options.verbose:
        console.say(f"status {answer.status} in {answer.elapsed_ms:.1f} ms, request {' '.join(answer.request_ids)}")
    body = answer.body.decode("utf-8", "backslashreplace")
    console.result(body if json_value(body) is None else Terminal.document(body))  # a body that is no JSON is one line
    if answer.status == 200 and not OF_A_REPLAY & answer.json().keys():
        console.warn(
            "status 200, and no answer of a replay: nobody knows whether anything was replayed; allowed: JSON with"
            f" {', '.join(sorted(OF_A_REPLAY))}. See what answers at BASE_URL"
        )
        return Decision.HOLD.exit_code
    return 0 if answer.status == 200 else Decision.HOLD.exit_code


def _budget(options: argparse.Namespace, target: Target, console: Console) -> int:
    if options.daily is not None or options.monthly is not None:
        if not options.company:
            raise UsageError("--daily or --monthly without a tenant; allowed: with -c COMPANY. Give -c")
        rows = [operations.set_budget(target, options.company, options.daily, options.monthly)]
    else:
        rows = operations.budgets(target, options.company)
    return _rows(rows, options, console)


def _flags(options: argparse.Namespace, target: Target, console: Console) -> int:
    rows = operations.flags(target)
    if not rows and operations.hides_flags(target):
        console.warn("row-level security may hide the flags from this login. Use one that sees all rows (replay_gate)")
    return _rows(rows, options, console)


def _rows(rows: Sequence[Mapping[str, Any]], options: argparse.Namespace, console: Console) -> int:
    titles = list(rows[0]) if rows else []
    cells = [[redact(row[title], console.hide) for title in titles] for row in rows]
    if options.json:
        members = [dict(zip(titles, row, strict=True)) for row in cells]
        console.result(Terminal.document(json.dumps(members, ensure_ascii=False)))
    elif rows:
        console.result(table([[cell(value) for value in row] for row in cells], titles))
    else:
        console.say("no rows")
    return 0
