"""`gate lint`: the policy, the catalogue and the SQL files, checked without a target."""

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gates import catalogue, config
from gates.decision import policy_file
from gates.decision.policy_file import PolicyFile
from gates.errors import CannotWork, ConfigError
from gates.evidence import CheckSpec, TargetKind
from gates.inputs.shapes import nearest
from gates.operator.checklist import BOXES
from gates.operator.explain import left_out_lines, promised_lines, unaccounted
from gates.operator.names_lint import against_target
from gates.proof.workbench.programs import known_faults
from gates.stages.collection import collect, own_folders, sql_suite, with_own_checks
from gates.stages.suite import ROOT
from gates.text.patterns import matches

SCHEMA = Path(policy_file.__file__).with_name("gate.schema.json")


@dataclass(frozen=True, slots=True)
class Linted:
    """What lint found wrong, one line each, and how much it checked."""

    problems: tuple[str, ...]
    checks: int


def lint(path: Path | None, environ: Mapping[str, str], today: dt.date, *, target: bool = False) -> Linted:
    """Check gate.yaml against the catalogue, and the catalogue and the schema against the code. target: also check its
    names against the database. Raise ConfigError on mistakes in gate.yaml.
    """
    file = config.load_policy(path, today)
    specs = with_own_checks(file, environ)
    file.policy(specs, TargetKind.PRODUCTION, "", deep=True)
    named = _named(file, environ) if target else []  # first: a target that does not answer ends it
    collected = collect(environ)
    problems = _catalogue_problems(collected) + _never_red(collected, environ)
    if SCHEMA.read_text(encoding="utf-8") != policy_file.schema():
        problems.append(f"{SCHEMA.name}: differs from the code; run `gate lint --write`")
    problems += _boxes_unknown(file)
    return Linted((*problems, *named, *_sql_problems(environ, file)), len(specs))


def _boxes_unknown(file: PolicyFile) -> list[str]:
    """Attestations of boxes that do not exist."""
    place, known = file.root.place_of("attestations"), tuple(b.name for b in BOXES if not b.patterns)
    unknown = [a.box for a in file.settings.attestations if a.box.strip().lower() not in map(str.lower, known)]
    return [f"{place}: the box {box!r}; allowed: {', '.join(known)}. {nearest(box, known)}" for box in unknown]


def _named(file: PolicyFile, environ: Mapping[str, str]) -> list[str]:
    url = config.load_target(environ).database_url
    if not url:
        raise ConfigError("--target without DATABASE_URL; allowed: the target's database. Set the variable")
    return against_target(file, url)


def _catalogue_problems(collected: tuple[CheckSpec, ...]) -> list[str]:
    shipped = {s.id: s for s in catalogue.load()}
    declared = {s.id: s for s in collected}
    do = "run `gate lint --write`"
    problems = [
        f"catalogue.json: {i} is declared and not listed; {do}" for i in sorted(declared.keys() - shipped.keys())
    ]
    problems += [
        f"catalogue.json: {i} is listed and not declared; {do}" for i in sorted(shipped.keys() - declared.keys())
    ]
    changed = sorted(i for i in declared.keys() & shipped.keys() if declared[i] != shipped[i])
    problems += [f"catalogue.json: {i} differs from its declaration; {do}" for i in changed]
    problems += [
        f"{i}: after {a}, which is no check" for i, s in declared.items() for a in s.after if a not in declared
    ]
    problems += [f"{i}: it has no claim" for i, s in declared.items() if not s.claim]
    lost = unaccounted(declared.values(), promised_lines(), left_out_lines())
    problems += [f"promise {i}: no check covers it, and no left_out.yaml says why" for i in lost]
    return problems


def _never_red(collected: tuple[CheckSpec, ...], environ: Mapping[str, str]) -> list[str]:
    """Drill checks that no fault turns red, if the faults are known."""
    faults = known_faults(environ)
    declared = tuple({pattern for fault in faults or () for pattern in fault.checks})
    drills = (s.id for s in collected if s.id.startswith("drill/") and faults is not None)
    never = (i for i in drills if not matches(i, declared))
    return [f"{i}: no fault turns it red; declare one in faults/, as docs/faults.md says" for i in never]


def _sql_problems(environ: Mapping[str, str], file: PolicyFile) -> list[str]:
    """The SQL suite's own lint of its files and of the folders of gate.yaml: file:line:column, one per line."""
    if not (ROOT / "sql_checks" / "__main__.py").exists():
        return []
    done = sql_suite(["lint", *own_folders(file)], environ)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return [] if done.returncode == 0 else [_PLACE.sub(_placed, line) for line in said]


_PLACE = re.compile(r"^(\S+\.(?:sql|yaml))(:\d+)?(:\d+)?: ")


def _placed(found: re.Match[str]) -> str:
    """The complete place: a missing line or column means the first."""
    return f"{found[1]}{found[2] or ':1'}{found[3] or ':1'}: "


def write(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Write all that is generated from the code; returns the names of the files."""
    catalogue.FILE.write_text(catalogue.dump(collect(environ)), encoding="utf-8")
    SCHEMA.write_text(policy_file.schema(), encoding="utf-8")
    done = sql_suite(["docs"], environ)
    if done.returncode:
        raise CannotWork(
            f"the pages in docs/ could not be written: {done.stderr.strip()}; see python -m sql_checks docs"
        )
    return catalogue.FILE.name, SCHEMA.name, "alerts.md", "presets.md"
