"""Checks spot checks, alert rules, their tests and runbooks without a database. Each problem is one line."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gates import disk
from gates.contract.queues import FOLDER, Queue, presets
from gates.errors import ConfigError
from sql_checks.names import unqualified
from sql_checks.rules.cases import read_test
from sql_checks.rules.file import ALERTS, AlertRule, read_all_rules
from sql_checks.rules.queues import read_queue_rules, rules_of
from sql_checks.spotfile import SPOT, SpotFileError, read_spot, require_query

OBSERVABILITY = Path(__file__).parent / "observability"
INTERVAL = re.compile(r"interval '([^']+)'")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def lint(spot_folders: Sequence[Path] = (), alert_folders: Sequence[Path] = ()) -> list[str]:
    """All problems, in the order of the files; an empty list is good."""
    return [
        *_spots([SPOT, *spot_folders]),
        *_observability(),
        *(problem for folder in (ALERTS, *alert_folders) for problem in lint_rules(folder)),
        *_queues(),
    ]


def _tried(read: Callable[[], object]) -> Iterator[str]:
    try:
        read()
    except (SpotFileError, ConfigError, OSError) as error:
        yield str(error)


def _spots(folders: Sequence[Path]) -> Iterator[str]:
    seen: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            yield f"{folder}: no such folder; allowed: a folder of spot checks. Correct spot_folders in gate.yaml"
            continue
        for path in sorted(folder.glob("*.sql")):
            told = _tried(lambda path=path: read_spot(path))  # type: ignore[misc]
            problems = [p if p.startswith(str(path)) else f"{path}:1:1: {p}" for p in told]
            yield from problems
            if not problems:
                spot = read_spot(path)
                yield from _named(str(path), spot.violations, spot.seen)
                check_id = spot.spec.id
                if check_id in seen:
                    yield f"{path}:1: the id {check_id} is also in {seen[check_id]}; allowed: once. Rename one"
                seen[check_id] = path


def _observability() -> Iterator[str]:
    for path in sorted(OBSERVABILITY.glob("*.sql")):
        text = disk.read_text(path)
        if not text.startswith("-- "):
            yield f"{path}:1: no comment on the first line; it is needed: `gate status` shows it"
        body = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
        yield from _tried(lambda path=path, body=body: require_query(path, body))  # type: ignore[misc]
        yield from _named(str(path), body)


def _queues() -> Iterator[str]:
    """The checks of queues in the words of every preset."""
    for rule in read_queue_rules():
        yield from _lint_runbook(rule)
    for name, preset in presets().items():
        for rule in rules_of(Queue(preset)):
            yield from _named(f"{FOLDER / name}.yaml: {rule.name}", rule.query)


def _named(where: str, *queries: str) -> Iterator[str]:
    """Names without a schema."""
    try:
        names = sorted({name for query in queries for name in unqualified(query)})
    except ValueError as error:
        yield f"{where}: cannot be read as SQL: {error}"
        return
    if names:
        yield f"{where}: {', '.join(names)} without a schema; allowed: public.{names[0]}. Name the schema"


def lint_rules(folder: Path) -> Iterator[str]:
    """Problems of a folder of alert rules and of the tests beside them."""
    try:
        rules = read_all_rules(folder)
    except ConfigError as error:
        yield str(error)
        return
    names = [rule.name for rule in rules]
    for rule in rules:
        if names.count(rule.name) > 1:
            yield f"{rule.place}: the alert {rule.name} is in two files; allowed: once. Rename one"
        yield from _lint_rule(rule, folder)
    for path in sorted((folder / "tests").glob("*.yaml")):
        if path.stem not in names:
            yield f"{path}: there is no rule {path.stem}; allowed: the name of a rule. Remove or rename the file"


def _lint_rule(rule: AlertRule, folder: Path) -> Iterator[str]:
    for window in (rule.window, rule.samples_window):
        if window not in {"", "now", *INTERVAL.findall(rule.query)}:
            yield f"{rule.place}: rule {rule.name}: `interval '{window}'`, its window, is not in the query"
    yield from _named(f"{rule.place}: rule {rule.name}", rule.query)
    yield from _lint_runbook(rule)
    try:
        test = read_test(rule.name, folder / "tests")
    except ConfigError as error:
        yield str(error)
        return
    if test is None:
        yield f"{rule.place}: rule {rule.name} has no fixtures; needed: {folder / 'tests' / f'{rule.name}.yaml'}"
        return
    for kind in test.missing():
        yield f"{rule.place}: rule {rule.name} has no fixture for `{kind}`; add one, or the reason under not_applicable"
    for severity, _ in rule.limits:
        if severity.value not in {case.expect for case in test.cases}:
            yield f"{rule.place}: rule {rule.name}: no fixture expects {severity.value}; add one beyond its limit"


def _lint_runbook(rule: AlertRule) -> Iterator[str]:
    file, _, anchor = rule.runbook.partition("#")
    if file.startswith("https://"):
        return
    path = Path(rule.place.file).parent / file
    headings = HEADING.findall(disk.read_text(path)) if path.exists() else []
    if anchor not in {re.sub(r"[^a-z0-9]+", "-", h.lower()).strip("-") for h in headings}:
        yield f"{rule.place}: rule {rule.name}: there is no runbook {rule.runbook}; add the section or correct the link"
