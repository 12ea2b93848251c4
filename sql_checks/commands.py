"""The tools around the SQL suites: write the manifest, export, lint, generate docs/alerts.md.

Reads DATABASE_URL where a command needs a database. Exit codes: 0 done, 2 usage, 3 a file or the configuration is
wrong, 4 the database could not be read, or a file not be written.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import psycopg

from gates.config import load_target, process_environment
from gates.contract.queues import Queue, queue_of
from gates.deployment.dialect.current import current, learn, named
from gates.deployment.queue.schema import look_at
from gates.deployment.sql.database import session
from gates.deployment.sql.failures import in_words
from gates.errors import first_line
from gates.text.patterns import matches
from sql_checks.export.alert_docs import alerts_markdown
from sql_checks.export.prometheus import queries_yaml, rules_yaml, unit_tests_yaml
from sql_checks.export.psql import alerts_to_psql, spots_to_psql
from sql_checks.export.queue_docs import presets_markdown
from sql_checks.fingerprint import DEFAULT_MANIFEST, read_schema
from sql_checks.lint import lint
from sql_checks.rules.file import ALERTS, AlertRule, read_all_rules
from sql_checks.rules.queues import rules_of
from sql_checks.spotfile import SPOT, SpotCheck, read_folder
from sql_checks.sqlsession import SqlSession

Exported = TypeVar("Exported", AlertRule, SpotCheck)
DOCS = Path(__file__).parent.parent / "docs"


class CommandError(Exception):
    """A command cannot do its work; `code` is the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def main(argv: Sequence[str]) -> int:
    """Run one command; the exit code. Usage errors exit with 2."""
    options = _parser().parse_args(argv)
    learn(process_environment())
    command: Callable[[argparse.Namespace], str] = options.run
    try:
        _say(sys.stdout, command(options))
    except CommandError as error:
        _say(sys.stderr, f"{error}\n")
        return error.code
    except (ValueError, OSError) as error:
        _say(sys.stderr, f"{error}\n")
        return 3
    return 0


def _say(stream: object, text: str) -> None:
    getattr(stream, "write")(text)  # noqa: B009  -- the stream is stdout or stderr


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sql_checks", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    manifest = commands.add_parser("write-manifest", help="write the manifest of the schema at DATABASE_URL")
    manifest.add_argument("--output", default=str(DEFAULT_MANIFEST), help="file, or - for stdout")
    manifest.set_defaults(run=_write_manifest)
    export = commands.add_parser("export", help="write alert rules or spot checks for other tools")
    export.add_argument("what", choices=("alerts", "sql"))
    export.add_argument("to", choices=("prometheus", "psql"))
    export.add_argument("--only", action="append", default=[], metavar="GLOB", help="of these ids alone")
    export.add_argument("--output", default="-", help="file (psql) or folder (prometheus); - for stdout")
    export.add_argument("--runbooks", default="", metavar="URL", help="where the folder of the runbooks is published")
    export.add_argument("--queue", metavar="JSON", help="the queue of the deployment: its rules, too")
    export.add_argument("--queue-alone", action="store_true", help="the rules of the queue, and no others")
    _folders(export)
    export.set_defaults(run=_export)
    check = commands.add_parser("lint", help="check spot checks, alert rules and their tests without a database")
    _folders(check)
    check.set_defaults(run=_lint)
    docs = commands.add_parser("docs", help="write docs/alerts.md and docs/presets.md")
    docs.add_argument("--output", default=str(DOCS), help="the folder")
    docs.set_defaults(run=_docs)
    return parser


def _folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spot-folder", action="append", default=[], metavar="DIR")
    parser.add_argument("--alert-folder", action="append", default=[], metavar="DIR")


def _rules(options: argparse.Namespace) -> list[AlertRule]:
    folders = [] if getattr(options, "queue_alone", False) else [ALERTS]
    own = [r for f in (*folders, *map(Path, options.alert_folder)) for r in read_all_rules(f)]
    own += _queue_rules(queue_of(options.queue)) if getattr(options, "queue", None) else []
    return _asked_for(options, own)


def _queue_rules(queue: Queue) -> list[AlertRule]:
    """The rules of a queue, for its version at DATABASE_URL where that is set, else for the newest."""
    url = load_target(process_environment()).database_url
    schema = None
    if url:
        with session(url, read_only=True) as connection:
            look = look_at(queue, connection)
        if look.trouble:
            raise CommandError(look.trouble, 4)
        schema = look.schema
    return [replace(rule, name=f"queue-{rule.name}") for rule in rules_of(queue, schema)]


def _spots(options: argparse.Namespace) -> list[SpotCheck]:
    return _asked_for(options, [s for f in (SPOT, *map(Path, options.spot_folder)) for s in read_folder(f)])


def _asked_for(options: argparse.Namespace, found: list[Exported]) -> list[Exported]:
    """Those that --only matches; all where it is not given. Raise CommandError for a pattern without a match."""
    for pattern in options.only:
        if not any(matches(one.spec.id, [pattern]) for one in found):
            raise CommandError(f"--only {pattern!r} matches none of what is exported. See gate explain", 2)
    return [one for one in found if not options.only or matches(one.spec.id, options.only)]


def _put(output: str, text: str) -> str:
    if output == "-":
        return text
    _write(Path(output), text)
    return f"wrote {output}\n"


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{error}; allowed: a place that can be written. See to its disk", 4) from error


def _write_manifest(options: argparse.Namespace) -> str:
    url = load_target(process_environment()).database_url
    if not url:
        raise CommandError("DATABASE_URL is not set; the schema of a database you trust is needed. Set it", 3)
    session = SqlSession(url)
    try:
        with session.snapshot() as connection:
            manifest = read_schema(connection)
    except psycopg.Error as error:
        raise CommandError(f"the schema could not be read: {in_words(error)}", 4) from error
    finally:
        session.close()
    if not manifest.kinds["columns"]:
        raise CommandError(f"no tables were found in {', '.join(current().schemas)}. Migrate first", 4)
    return _put(options.output, manifest.to_text())


def _with_link(rule: AlertRule, base: str) -> AlertRule:
    """The rule with a runbook that an alert can link to."""
    absolute = not base or rule.runbook.startswith("https://")
    return rule if absolute else replace(rule, runbook=f"{base.rstrip('/')}/{rule.runbook}")


def _export(options: argparse.Namespace) -> str:
    if options.to == "psql":
        text = alerts_to_psql(_rules(options)) if options.what == "alerts" else spots_to_psql(_spots(options))
        return _put(options.output, text)
    if options.what == "sql":
        raise CommandError("spot checks have no form in Prometheus; allowed: export sql psql", 2)
    kept, left_out = _nameable(_rules(options))
    rules = [_with_link(rule, options.runbooks) for rule in kept]
    if options.output == "-":
        commented = "".join(f"# {line}\n" for line in queries_yaml(rules).splitlines())
        return f"{left_out}{rules_yaml(rules)}\n# queries.yml, for the exporter:\n{commented}"
    folder = Path(options.output)
    for name, text in (
        ("rules.yml", rules_yaml(rules)),
        ("queries.yml", queries_yaml(rules)),
        ("rules_test.yml", unit_tests_yaml(rules)),
    ):
        _write(folder / name, text)
    return f"{left_out}wrote {folder}/rules.yml, queries.yml, rules_test.yml\n"


def _nameable(rules: list[AlertRule]) -> tuple[list[AlertRule], str]:
    """The rules that the deployment has the objects for, and lines that say why others are left out."""
    kept, lines = [], ""
    for rule in rules:
        try:
            named(rule.query)
            kept.append(rule)
        except psycopg.Error as error:
            lines += f"# {rule.name}: left out: {first_line(error)}\n"
    return kept, lines


def _lint(options: argparse.Namespace) -> str:
    problems = lint(list(map(Path, options.spot_folder)), list(map(Path, options.alert_folder)))
    if problems:
        raise CommandError("\n".join(problems), 3)
    return "spot checks, alert rules and their tests: nothing found\n"


def _docs(options: argparse.Namespace) -> str:
    folder = Path(options.output)
    pages = {"alerts.md": alerts_markdown(read_all_rules()), "presets.md": presets_markdown()}
    return "".join(_put(str(folder / name), text) for name, text in pages.items())
