"""Runs drills against a target and returns their evidence by check id."""

import contextlib
import fnmatch
import io
import os
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from _pytest.config import _prepareconfig

from drills.residue.conftest import FOUND
from drills.workbench.journal import JOURNAL
from drills.workbench.scene import Scene
from gates.checks.recorder import CLAIMS, PROGRESS, RESULT, current_target, spec_of
from gates.config import process_environment
from gates.deployment.dialect.current import NAMES, learn
from gates.deployment.sql.database import told
from gates.evidence import CheckSpec, Evidence, Outcome
from gates.evidence_file import read_lines
from gates.stages.suite import LEFT_OUT

ROOT = Path(__file__).resolve().parents[2]
OVER_HTTP = tuple(
    f"drill/{promise}/*"
    for promise in (
        *("authentication", "tokens", "http-surface", "rate-limit", "idempotency", "safety-rails", "dry-run", "proof"),
    )
)
"""The checks that look at answers over HTTP, and at little else."""
WAIT_SCALE = 0.3
"""Nobody else works on this target: what does not come within 2 s never comes."""


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


PLAIN = (f"--rootdir={ROOT}", "-c", f"{ROOT}/pyproject.toml", *LEFT_OUT, "-q", "-s", "--tb=native", "-W", "ignore")
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def run_pytest(arguments: Sequence[str], variables: Mapping[str, str]) -> str:
    """Run pytest in this process, with these variables and the plugins of a stage; returns its output."""
    said = io.StringIO()
    with environment({**variables, **ALONE}), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        pytest.main([*PLAIN, *arguments])
    return said.getvalue()


class Kept:
    """A pytest session that collects every drill once and can run some of them repeatedly: starting pytest costs the
    most.
    """

    FEWER = ("--tb=line", "-p", "no:threadexception", "-p", "no:faulthandler")

    def __init__(self) -> None:
        with environment({"GATE_TARGET": "reference", **ALONE}), contextlib.redirect_stdout(io.StringIO()):
            config = _prepareconfig([*PLAIN, *self.FEWER, str(ROOT / "drills"), "--collect-only", "--deep"])
            config._do_configure()
            self._session = pytest.Session.from_config(config)
            config.hook.pytest_sessionstart(session=self._session)
            config.hook.pytest_collection(session=self._session)
        config.option.collectonly = False
        self.items = [(item, spec_of(item)) for item in self._session.items]

    def run(
        self, variables: Mapping[str, str], evidence: Path, checks: Sequence[str], deep: bool, ends: Collection[Outcome]
    ) -> None:
        """Run the checks whose ids match these patterns; a check is over with what it first comes to of `ends`."""
        session, config = self._session, self._session.config
        config.option.evidence, config.option.only, config.option.deep = str(evidence), [*checks], deep
        seen_before: tuple[pytest.StashKey[Any], ...] = (PROGRESS, CLAIMS, FOUND)
        for key in seen_before:
            if key in config.stash:
                del config.stash[key]
        config.stash[JOURNAL].forget()
        with environment(variables):
            current_target.cache_clear()
            learn(process_environment())
            told(process_environment())
            Scene.trip_s = 0.0
            wanted = {*matching(checks)}
            session.items = [item for item, spec in self.items if spec and spec.id in wanted]
            config.hook.pytest_collection_modifyitems(session=session, config=config, items=session.items)
            config.hook.pytest_collection_finish(session=session)
            ended: list[CheckSpec | None] = []
            for item, following in pairwise([*session.items, None]):
                assert item is not None
                if (spec := spec_of(item)) in ended:
                    session._setupstate.teardown_exact(following)
                    continue
                item.stash = pytest.Stash()
                config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if item.stash[RESULT].outcome in ends:
                    ended.append(spec)


kept = cache(Kept)


@cache
def places() -> Mapping[str, Path]:
    """Each drill check's file."""
    return {spec.id: item.path for item, spec in kept().items if spec}


def matching(patterns: Sequence[str]) -> list[str]:
    """The drill checks that any of the patterns matches."""
    return sorted({i for pattern in patterns for i in fnmatch.filter(places(), pattern)})


def examine(
    variables: Mapping[str, str],
    checks: Sequence[str],
    folder: Path,
    *options: str,
    ends: Collection[Outcome] = (Outcome.FAIL,),
) -> dict[str, Evidence]:
    """Run the drill checks whose ids match these patterns; the evidence by id."""
    evidence, said = folder / f"{uuid.uuid4().hex}.ndjson", ""
    if NAMES in variables or {*options} - {"--deep"}:  # variables that are read at import or collection
        files = sorted({str(places()[i]) for i in matching(checks)})
        said = run_pytest([*files, f"--evidence={evidence}", *(f"--only={c}" for c in checks), *options], variables)
    else:
        kept().run(variables, evidence, checks, "--deep" in options, ends)
    found = {e.check: e for e in read_lines(evidence)} if evidence.exists() else {}
    assert found, f"no check matched {list(checks)}:\n{said[-2000:]}"
    return found


def not_passed(found: Mapping[str, Evidence]) -> dict[str, str]:
    """The checks that did not pass, and why."""
    return {i: f"{e.outcome}: {e.message}" for i, e in found.items() if e.outcome is not Outcome.PASS}


@contextmanager
def brief_waits() -> Iterator[None]:
    """Shorten the drills' waits for what will never come."""
    Scene.wait_scale = WAIT_SCALE
    try:
        yield
    finally:
        Scene.wait_scale = 1.0
