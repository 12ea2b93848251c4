"""Runs the gate against a hostile server, with the same checks after every trial."""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gates.proof.hostile.contents import LIVE_FORMS, LIVE_HTML, LIVE_MARKDOWN
from gates.proof.hostile.impostors import LIMITS_S, Gate, Impostor
from gates.proof.hostile.residue import Residue, leaks
from gates.proof.judgement import GateRun
from gates.proof.workbench import programs
from gates.proof.workbench.bench import ProofBench
from gates.proof.workbench.programs import FinishedProgram
from gates.proof.workbench.servers import serve
from gates.stack.postgres import connect
from gates.verdict import Decision

POLICY = """version: 1
stages: {drill: {timeout_s: 40, workers: 2}, sql: {timeout_s: 20}, load: {timeout_s: 60}}
"""
KEPT = ("evidence.ndjson", "run.json", "verdict.json", "junit.xml", "summary.md")
"""Files that a job may print whole."""
RIGHT_CODES = {d.exit_code for d in Decision} | {21}
STANDING = """select
 (select string_agg(f::text, ' ' order by id) from public.feature_flags f),
 (select string_agg(a.company_id || ':' || a.agents_paused, ' ' order by id) from public.agent_controls a),
 (select count(*) from public.companies),
 (select count(*) from pg_stat_activity where application_name like 'replaygate%'
  and application_name <> 'replaygate-stack' and datname = current_database())"""
STANDING_NAMES = ("the flags", "the pauses", "the number of companies", "the gate's sessions")


@dataclass(frozen=True, slots=True)
class HostileRun:
    """A run of the gate and its traces. `found`: what is wrong, one line each."""

    run: GateRun
    found: tuple[str, ...]


def standing(url: str) -> tuple[object, ...]:
    """What no gate may change by looking: flags, pauses, tenants, its own sessions."""
    with connect(url) as connection:
        return tuple(connection.execute(STANDING.encode()).fetchone() or ())


@dataclass(frozen=True, slots=True)
class Arena:
    """One deployment. out: the folder of the suite; policy: the suite's policy file."""

    bench: ProofBench
    out: Path
    policy: Path

    def meet(self, one: Impostor) -> HostileRun:
        """Run the gate against one hostile server."""
        info = self.bench.stack.info
        parts = urlsplit(info.base_url)
        with serve(one.make(f"{parts.scheme}://{parts.netloc}", info.release)) as base:
            given = {**self.bench.variables(), "BASE_URL": base + parts.path, **one.variables}
            return self.run(one.name, {k: v for k, v in given.items() if k not in one.unset}, one.gate)

    def run(
        self,
        name: str,
        variables: Mapping[str, str],
        gate: Gate,
        limit_s: float = 0.0,
        then: Callable[[], object] = lambda: None,
    ) -> HostileRun:
        """Run the gate and check everything that it must not do. then: called before the check of what is left."""
        folder = self.out / name
        words = _words(gate, folder, self.policy)
        before = standing(self.bench.stack.info.database_url)
        github = {"GITHUB_STEP_SUMMARY": str(folder / "step-summary.md"), "GITHUB_OUTPUT": str(folder / "step-output")}
        with Residue() as residue:
            environ = residue.marked({**variables, **github, "GITHUB_ACTIONS": "true"})
            folder.mkdir(parents=True, exist_ok=True)
            done = programs.run(words, environ, limit_s or LIMITS_S[gate])
            found = residue.left()
        found += _ended_badly(done, folder)
        then()
        after = standing(self.bench.stack.info.database_url)
        found += [
            f"{what} changed from {old} to {new}"
            for what, old, new in zip(STANDING_NAMES, before, after, strict=True)
            if old != new
        ]
        found += leaks(folder, (done.out, done.err), self._secrets(variables))
        found += live(folder, (done.out, done.err))
        return HostileRun(programs.read_run(folder, done), tuple(found))

    def _secrets(self, variables: Mapping[str, str]) -> dict[str, str]:
        names = ("TRANSBOT_HMAC_SECRET", "REPLAY_JWT_SECRET")
        secrets = {name: variables.get(name, "") for name in names}
        secrets["the password of DATABASE_URL"] = urlsplit(variables.get("DATABASE_URL", "")).password or ""
        secrets["the signature of ADMIN_JWT"] = variables.get("ADMIN_JWT", "").rpartition(".")[2]
        return secrets


def _words(gate: Gate, folder: Path, policy: Path) -> tuple[str, ...]:
    options = ("--dry-run", "--output", str(folder), "--state", str(folder / "state"))
    if gate is Gate.WHOLE:
        return programs.gate(("run", *options))
    return (sys.executable, "-m", "gates.proof.hostile.short", *options, "--policy", str(policy))


def _ended_badly(done: FinishedProgram, folder: Path) -> list[str]:
    """Whether the gate hung, crashed, or one of its suites did."""
    if done.code is None:
        return [f"it did not end within {done.seconds:.0f} s"]
    found = [] if done.code in RIGHT_CODES else [f"exit code {done.code}: {done.err[-300:]}"]
    found += ["it wrote a traceback"] * ("Traceback" in done.err)
    for log in sorted((folder / "logs").glob("*.log")):
        if "INTERNALERROR" in (text := log.read_text(encoding="utf-8", errors="replace")):
            found.append(f"{log.name}: {next(line for line in text.splitlines() if 'INTERNALERROR' in line)[:200]}")
    return found


FENCED = re.compile(r"^(`{3,})[^`\n]*\n.*?^\1`*[ \t]*$", re.MULTILINE | re.DOTALL)
"""A fenced block of Markdown, up to its closing line: its contents are code."""


def live(folder: Path, printed: Iterable[str]) -> list[str]:
    """Where foreign text is active: on the terminal, in the log of a CI system, in Markdown, in the page."""
    found = [f"what it printed has {m.group()!r}" for t in printed for form in LIVE_FORMS if (m := form.search(t))]
    for name, forms in (
        ("summary.md", (*LIVE_FORMS[:2], *LIVE_MARKDOWN)),
        ("step-summary.md", (*LIVE_FORMS[:2], *LIVE_MARKDOWN)),
        ("report.html", (*LIVE_HTML, *LIVE_FORMS[3:])),
        *((name, LIVE_FORMS[3:]) for name in KEPT),
        *((str(log.relative_to(folder)), LIVE_FORMS) for log in sorted(folder.glob("l*/*.log"))),
    ):
        path = folder / name
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        if name.endswith(".md"):
            text = FENCED.sub("", text)
        found += [f"{name} has {m.group()!r}" for form in forms if (m := form.search(text))]
    return found
