"""Collects all checks: those of the suites, and those that gate.yaml adds."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from gates import catalogue, config
from gates.contract.contract import contract
from gates.decision.policy_file import PolicyFile
from gates.errors import CannotWork
from gates.evidence import CheckSpec
from gates.stages import claims, load_checks, pipeline, preflight, queue, switches, turn
from gates.stages.suite import ROOT, pytest_of

SUITES = ("drills", "sql_checks")
COLLECT_S = 60


def collect(environ: Mapping[str, str], options: tuple[str, ...] = ()) -> tuple[CheckSpec, ...]:
    """Every check of the suites, the load stage and the preflight. Raise CannotWork if one cannot be collected."""
    own = [pipeline.SPEC, turn.SPEC, switches.SPEC, claims.SPEC]
    specs = [*preflight.SPECS, *own, *load_checks.SPECS, *queue.SPECS]
    for suite in SUITES:
        if (ROOT / suite).is_dir():
            specs += _collect(suite, environ, options if suite == "sql_checks" else ())
    return tuple(sorted(map(contract().placed, specs), key=lambda s: s.id))


def _collect(suite: str, environ: Mapping[str, str], options: tuple[str, ...]) -> list[CheckSpec]:
    with tempfile.TemporaryDirectory() as folder:
        listing, ini = Path(folder) / "catalogue.json", Path(folder) / "pytest.ini"
        ini.write_text("[pytest]\n", encoding="utf-8")
        plugins = ("-q", "-p", "gates.checks.recorder", "-p", "no:cacheprovider")
        unwanted = {*config.VARIABLES, *config.KEYS}
        clean = {k: v for k, v in config.plain(environ).items() if k not in unwanted}
        done = _done(
            (*pytest_of(ROOT / suite, ini), *plugins, f"--catalogue={listing}", *options),
            {**clean, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        )
        if not listing.exists():
            said = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
            raise CannotWork(f"{suite} could not be collected; allowed: a suite without errors. It says:\n{said}")
        return [CheckSpec.from_json(one) for one in json.loads(listing.read_text(encoding="utf-8"))]


def with_own_checks(file: PolicyFile, environ: Mapping[str, str]) -> tuple[CheckSpec, ...]:
    """The shipped catalogue, and the checks in the folders that gate.yaml names."""
    shipped = catalogue.load()
    options = own_folders(file)
    if not options:
        return shipped
    known = {s.id for s in shipped}
    return (*shipped, *(s for s in _collect("sql_checks", environ, options) if s.id not in known))


def own_folders(file: PolicyFile) -> tuple[str, ...]:
    """The folders of gate.yaml as options of the SQL suite. Raise ConfigError if one of them is missing."""
    file.check_folders()
    options = tuple(f"--spot-folder={p}" for p in file.settings.spot_folders)
    return options + tuple(f"--alert-folder={p}" for p in file.settings.alert_folders)


def sql_suite(words: list[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `python -m sql_checks` with these arguments: exports, the manifest, its own lint."""
    own = {k: v for k, v in config.plain(environ).items() if k not in config.KEYS}
    return _done((sys.executable, "-m", "sql_checks", *words), own)


def _done(command: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Wait for a process of ours. Raise CannotWork if it does not end: a check may be a pipe."""
    try:
        return subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=COLLECT_S, check=False
        )
    except subprocess.TimeoutExpired:
        said = f"the checks were not read within {COLLECT_S} s; allowed: regular files"
        raise CannotWork(f"{said}. See to the folders of checks in gate.yaml") from None
