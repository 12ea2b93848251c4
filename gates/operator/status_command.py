"""`gate status`: its options, its tables, its exit code. Returns text; does not print."""

import argparse
import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path

from gates import config
from gates.deployment.identity import identity
from gates.errors import ConfigError
from gates.evidence import JsonValue
from gates.inputs import options as shared
from gates.operator.status import Section, look
from gates.reports.console import Console
from gates.reports.terminal import cell, table
from gates.text.inert import Terminal
from gates.watch import history
from gates.watch.rounds import EXIT_CODES

MOST_ROWS = 20


def add_arguments(made: argparse.ArgumentParser, _name: str) -> None:
    shared.policy(made)
    shared.state(made)
    shared.as_json(made)
    made.add_argument(
        "--output", type=Path, default=Path("gate-out"), metavar="DIR", help="of the gate's last run (gate-out)"
    )
    made.add_argument("--history", type=Path, metavar="FILE", help="the history of the watch")


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """Show the target as it is: 0 if all was seen, 10 if some is unknown. Raise ConfigError if there is no target."""
    file = config.load_policy(options.policy, dt.datetime.now(dt.UTC).date(), options.state)
    target = config.load_target(console.environ)
    if not target.base_url and not target.database_url:
        raise ConfigError(
            "neither BASE_URL nor DATABASE_URL is set; allowed: at least one of them. Set what to look at"
        )
    name = identity(target)
    remembered = options.history or file.settings.state_of(name) / history.FILE
    found = look(target, options.output, remembered, name)
    console.result(Terminal.document(as_json(found)) if options.json else as_tables(found))
    return EXIT_CODES["doubtful" if any(_counts(s) for s in found) else "good"]


def _counts(section: Section) -> bool:
    """Whether an unknown section matters: a missing run of the gate or the watch does not."""
    return bool(section.unknown) and section.name not in {"last_run", "last_round"}


def as_json(sections: Sequence[Section]) -> str:
    """One object: section -> title and rows, or title and why it is unknown."""
    members: dict[str, JsonValue] = {s.name: s.to_json() for s in sections}
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")) + "\n"


def as_tables(sections: Sequence[Section]) -> Terminal:
    """One table per section; text from the target cannot control the terminal."""
    return Terminal("\n").join(_as_table(s) for s in sections)


def _as_table(section: Section) -> Terminal:
    unknown = [f"  unknown: {section.unknown}"] * bool(section.unknown)
    if not section.rows and unknown:
        return Terminal.of_lines((section.title, *unknown))
    if not section.rows:
        return Terminal.of_lines((section.title, "  none"))
    titles = list(dict.fromkeys(name for row in section.rows for name in row))
    cells = [[cell(row.get(name)) for name in titles] for row in section.rows[:MOST_ROWS]]
    more = len(section.rows) - MOST_ROWS
    lines = [*table(cells, titles).splitlines(), *[f"… and {more} more (--json has all)"] * (more > 0)]
    return Terminal.of_lines((section.title, *(f"  {line}" for line in lines), *unknown))
