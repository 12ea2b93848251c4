"""Collects spot checks (`.sql`) and alert rules (`.yaml`) as pytest items, each one check with its evidence."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gates.checks.observation import Observer, Unmet
from gates.checks.recorder import OBSERVER, spec_of
from gates.config import load_target, process_environment
from gates.contract.queues import queue_of
from gates.decision.cohorts import CohortLimits
from gates.deployment.sql.failures import in_words
from gates.errors import ConfigError
from gates.evidence import CheckSpec, Severity, TargetKind, Where
from sql_checks import checkpoint
from sql_checks.attempts.contract_writes import Written, write
from sql_checks.attempts.row_level_security import RlsProbe, probe
from sql_checks.cohorts.run import OUTBOX_FLAG, CohortLook, cohort_statements, told
from sql_checks.fingerprint import KINDS, kind_query
from sql_checks.rules.file import AlertRule, read_rules
from sql_checks.rules.queues import RULES, QueueSession, read_queue_rules
from sql_checks.rules.run import asked_by, judge_rule
from sql_checks.spotfile import SpotCheck, SpotFileError, read_spot
from sql_checks.spotrun import judge_spot
from sql_checks.sqlsession import SqlSession, read_companies
from sql_checks.trail import CheckpointTrail, open_trail

HERE = Path(__file__).parent
SESSION = pytest.StashKey[SqlSession]()
TRAIL = pytest.StashKey[CheckpointTrail]()
QUEUE = pytest.StashKey[QueueSession]()
PROBE, WRITES = pytest.StashKey[Future[RlsProbe]](), pytest.StashKey[Future[Written]]()
RLS, WROTE, COHORT, MANIFEST = "sql/rls/", "sql/writes/", "cohort/", "sql/manifest/"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("replaygate SQL")
    group.addoption("--spot-folder", action="append", default=[], metavar="DIR", help="a further folder of spot checks")
    group.addoption(
        "--alert-folder", action="append", default=[], metavar="DIR", help="a further folder of alert rules"
    )
    group.addoption("--exclude-companies", metavar="FILE", help="leave out these companies (one id a line)")
    group.addoption("--crowded-companies", metavar="FILE", help="these tell of no lateness; the file may be absent")
    group.addoption("--steps", metavar="N,N,...", default="", help="the steps of the rollout, in percent (10,50,100)")
    group.addoption("--flag", metavar="KEY", default=OUTBOX_FLAG, help="the flag that the release is behind")
    group.addoption("--bake-minutes", type=int, default=60, help="how long a step bakes")
    group.addoption("--cohorts", metavar="JSON", default="{}", help="how much worse those with the release may do")
    group.addoption("--manifest", metavar="FILE", help="the release's manifest (default: the reference's)")
    group.addoption("--queue", metavar="JSON", help="the queue of this deployment: its preset and options")
    group.addoption("--state", metavar="DIR", help="where the checks of the audit trail remember how far they came")
    group.addoption("--require-checkpoint", action="store_true", help="a trail that no run verified before is unknown")


def pytest_configure(config: pytest.Config) -> None:
    """Add the drop-in folders to what is collected, once."""
    known = {Path(str(a).partition("::")[0]).resolve() for a in config.args}
    for folder in _extra_folders(config):
        if folder not in known:
            config.args.append(str(folder))


def _extra_folders(config: pytest.Config) -> list[Path]:
    names = [*config.getoption("--spot-folder"), *config.getoption("--alert-folder")]
    return [Path(name).resolve() for name in names]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    folder = file_path.parent.resolve()
    config = parent.config
    if file_path.resolve() == RULES:
        return QueueRuleFile.from_parent(parent, path=file_path)
    if file_path.suffix == ".sql" and folder in {HERE / "spot", *map(_resolved, config.getoption("--spot-folder"))}:
        return SpotFile.from_parent(parent, path=file_path)
    rules = {HERE / "alerts", *map(_resolved, config.getoption("--alert-folder"))}
    if file_path.suffix == ".yaml" and folder in rules and not file_path.name.endswith(".test.yaml"):
        return RuleFile.from_parent(parent, path=file_path)
    return None


def _resolved(name: str) -> Path:
    return Path(name).resolve()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start all queries, and the probe of row security beside them. The queries of the audit trail depend on what an
    earlier run verified.
    """
    target = load_target(process_environment())
    url = target.database_url
    if not url or session.config.option.collectonly:
        return
    checks = {spec.id for item in session.items if (spec := spec_of(item))}
    pool = ThreadPoolExecutor(1, "row-security")  # one after the other, so that neither waits for the other's locks
    may_write = target.kind is not TargetKind.PRODUCTION
    if any(check.startswith(WROTE) for check in checks):
        session.config.stash[WRITES] = pool.submit(write, url, may_touch_live=may_write)
    if any(check.startswith(RLS) for check in checks):
        session.config.stash[PROBE] = pool.submit(probe, url, may_write=may_write)
    session.config.add_cleanup(pool.shutdown)  # both end with the session
    items = [item for item in session.items if isinstance(item, SpotItem | RuleItem)]
    asked: list[tuple[str, ...]] = [item.asked for item in items if item.spec.id not in checkpoint.TRAIL]
    asked += [(kind_query(kind),) for kind in KINDS if f"{MANIFEST}{kind.replace('_', '-')}" in checks]
    if any(check.startswith(COHORT) for check in checks):
        asked.append(cohort_statements())
    if asked:
        session_of(session.config).ask_ahead(asked)


def session_of(config: pytest.Config) -> SqlSession:
    """The one connection of this pytest run, opened at first use."""
    if SESSION not in config.stash:
        target = load_target(process_environment())
        listed, crowded = config.getoption("--exclude-companies"), config.getoption("--crowded-companies")
        config.stash[SESSION] = SqlSession(
            target.database_url,
            excluded=read_companies(Path(listed), never=target.test_company_id) if listed else (),
            crowded=read_companies(Path(crowded)) if crowded and Path(crowded).exists() else (),
            settings=told(
                config.getoption("--flag"),
                config.getoption("--steps"),
                limits_of(config),
                config.getoption("--bake-minutes"),
            ),
            deep=bool(config.getoption("--deep")),
        )
    return config.stash[SESSION]


def limits_of(config: pytest.Config) -> CohortLimits:
    """The limits of the cohort checks: how much worse tenants with the release may do."""
    return CohortLimits(**json.loads(config.getoption("--cohorts")))


def trail_of(config: pytest.Config) -> CheckpointTrail | None:
    """The one trail of this pytest run, opened at first use; None where nothing is remembered."""
    folder = config.getoption("--state")
    if folder and TRAIL not in config.stash:
        config.stash[TRAIL] = open_trail(session_of(config), Path(folder))
    return config.stash.get(TRAIL, None)


def queue_of_run(config: pytest.Config) -> QueueSession | None:
    """The one look at the queue of this pytest run; None where the policy names no queue."""
    given = config.getoption("--queue")
    if given and QUEUE not in config.stash:
        config.stash[QUEUE] = QueueSession(queue_of(given))
    return config.stash.get(QUEUE, None)


def pytest_unconfigure(config: pytest.Config) -> None:
    if SESSION in config.stash:
        config.stash[SESSION].close()


class SpotFile(pytest.File):
    """One `.sql` file: one item."""

    def collect(self) -> Iterable[pytest.Item]:
        try:
            spot = read_spot(self.path)
        except (SpotFileError, OSError) as error:
            yield UnreadableItem.of(self, "sql/spot", error)
            return
        yield SpotItem.from_parent(self, name=spot.spec.id, spot=spot)


class RuleFile(pytest.File):
    """One `.yaml` file of alert rules: one item a rule."""

    def collect(self) -> Iterable[pytest.Item]:
        try:
            rules = read_rules(self.path)
        except (ConfigError, OSError) as error:
            yield UnreadableItem.of(self, "alert", error)
            return
        for rule in rules:
            yield RuleItem.from_parent(self, name=rule.spec.id, rule=rule)


class QueueRuleFile(pytest.File):
    """The checks of queues: one item a rule."""

    def collect(self) -> Iterable[pytest.Item]:
        for rule in read_queue_rules(self.path):
            yield QueueRuleItem.from_parent(self, name=rule.spec.id, rule=rule)


class CheckItem(pytest.Item):
    """A pytest item that is a check: it has a spec, and leaves its observation for the recorder."""

    def __init__(self, *, spec: CheckSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = spec
        self.add_marker(pytest.mark.check(spec))

    def runtest(self) -> None:
        observer = Observer(load_target(process_environment()))
        self.stash[OBSERVER] = observer
        try:
            self.observe(session_of(self.config), observer)
        except psycopg.Error as error:
            raise Unmet(in_words(error)) from error

    def observe(self, session: SqlSession, observer: Observer) -> None:
        raise NotImplementedError

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        del style
        return f"{self.spec.id}: {excinfo.value}\n  claim: {self.spec.claim}\n  cost: {self.spec.cost}"

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        return self.path, 0, str(self.spec.id)


class UnreadableItem(CheckItem):
    """A file that cannot be read: a check named after it, which is unknown and says why."""

    def __init__(self, *, why: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.why = why

    @classmethod
    def of(cls, file: pytest.File, kind: str, error: Exception) -> UnreadableItem:
        name = re.sub(r"^[0-9]+_", "", file.path.stem)
        check_id = f"{kind}/{re.sub(r'[^A-Za-z0-9.-]+', '-', name) or 'file'}"
        said = str(error) if str(error).startswith(str(file.path)) else f"{file.path}:1:1: {error}"
        claim = f"{file.path.name} can be read, and what it promises holds."
        spec = CheckSpec(check_id, claim, "What it looks for is not looked for.", Severity.WARN, Where.READ_ONLY)
        return cls.from_parent(file, name=check_id, spec=spec, why=f"the file cannot be read: {said}")

    def runtest(self) -> None:
        raise Unmet(self.why)


class SpotItem(CheckItem):
    def __init__(self, *, spot: SpotCheck, **kwargs: Any) -> None:
        super().__init__(spec=spot.spec, **kwargs)
        self.spot = spot
        self.asked = (spot.violations, spot.seen)

    def observe(self, session: SqlSession, observer: Observer) -> None:
        trail = trail_of(self.config) if self.spot.spec.id in checkpoint.TRAIL else None
        if trail is None:
            judge_spot(self.spot, session, observer)
        else:
            trail.judge(self.spot, session, observer, required=self.config.getoption("--require-checkpoint"))


class RuleItem(CheckItem):
    """An alert rule; its evidence carries the severity of the worst limit that was broken."""

    def __init__(self, *, rule: AlertRule, **kwargs: Any) -> None:
        super().__init__(spec=rule.spec, **kwargs)
        self.rule = rule
        self.asked = asked_by(rule)

    def observe(self, session: SqlSession, observer: Observer) -> None:
        judge_rule(self.rule, session, observer)


class QueueRuleItem(CheckItem):
    """A rule over the notions of the deployment's queue."""

    def __init__(self, *, rule: AlertRule, **kwargs: Any) -> None:
        super().__init__(spec=rule.spec, **kwargs)
        self.rule = rule

    def observe(self, session: SqlSession, observer: Observer) -> None:
        queue = queue_of_run(self.config)
        if queue is None:
            pytest.skip("not applicable: the policy names no queue")
        queue.judge(self.rule, session, observer)


@pytest.fixture(scope="session")
def sql_session(request: pytest.FixtureRequest) -> SqlSession:
    """The read-only connection for checks written in Python."""
    return session_of(request.config)


@pytest.fixture(scope="session")
def cohorts(request: pytest.FixtureRequest, sql_session: SqlSession) -> CohortLook:
    """The one look at the cohorts of this run."""
    return CohortLook(sql_session, str(request.config.getoption("--flag")), limits_of(request.config))
