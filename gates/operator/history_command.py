"""`gate history`: past decisions, from the state folder and the audit trail. Read-only."""

import argparse
import datetime as dt
import json
from pathlib import Path

import psycopg

from gates import config, past_decisions, record
from gates.deployment.identity import identity
from gates.deployment.redaction import hidden, redact
from gates.deployment.sql.database import session, sql
from gates.deployment.sql.failures import in_words
from gates.deployment.target import Target
from gates.errors import CannotWork
from gates.evidence import JsonValue
from gates.inputs import options as shared
from gates.operator.status import plain
from gates.reports.console import Console
from gates.reports.history import TargetHistory, page, tables
from gates.text.inert import Terminal
from gates.text.quantity import with_unit

STEPS = Path(__file__).with_name("sql") / "history.sql"
MOST_STEPS = 200


def add_arguments(made: argparse.ArgumentParser, _name: str) -> None:
    shared.policy(made)
    shared.state(made)
    shared.as_json(made)
    made.add_argument("--html", type=Path, metavar="FILE", help="write the page with trends there")


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """Show the decisions about the target of the environment; without one, about every remembered target."""
    file = config.load_policy(options.policy, dt.datetime.now(dt.UTC).date(), options.state)
    target = config.load_target(console.environ)
    state = file.settings.state
    try:
        if target.base_url or target.database_url:
            names = [identity(target)]
        else:
            names = [folder.name for folder in past_decisions.histories(state)]
        past = {name: past_decisions.read(state / name) for name in names}
    except OSError as error:
        raise CannotWork(f"{error}; allowed: a state folder that can be read. Correct --state") from error
    steps, unseen = _steps(target, file.settings.rollout.flag)
    found = [TargetHistory(name, runs, steps, unseen) for name, runs in past.items()]
    if options.html:
        record.write(options.html, page(found))
        console.say(f"{options.html}: {with_unit(sum(len(runs) for runs in past.values()), 'runs')}")
    if options.json:
        members: list[JsonValue] = [one.to_json() for one in found]
        console.result(Terminal.document(json.dumps(members, ensure_ascii=False)))
    elif not found:
        console.result(f"nothing is remembered in {state}: run the gate, or name its folder with --state")
    elif not options.html:
        for one in found:
            console.result(tables(one))
    return 0


def _steps(target: Target, flag: str) -> tuple[list[dict[str, JsonValue]], str]:
    """The audit rows about the flag, the newest first, or why they were not read."""
    if not target.database_url:
        return [], "DATABASE_URL is not set"
    try:
        with session(target.database_url, read_only=True) as connection:
            rows = connection.execute(sql(STEPS).encode(), {"flag": flag, "most": MOST_STEPS}).fetchall()
    except (psycopg.Error, ValueError) as error:
        return [], in_words(error)
    hide = hidden(target)
    return [{name: redact(plain(value), hide) for name, value in row.items()} for row in rows], ""
