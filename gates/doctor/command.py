"""`gate doctor`: its options, what it prints and writes, its exit code."""

import argparse
import dataclasses
import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gates import config
from gates.contract.contract import contract
from gates.contract.names import Names
from gates.contract.queues import queue_of
from gates.contract.scope import Scope
from gates.decision import policy_file
from gates.deployment.dialect.current import use
from gates.deployment.target import WANTED, Target
from gates.doctor.diagnosis import Diagnosis, diagnose
from gates.doctor.draft.carrying import with_said
from gates.doctor.draft.draft import draft
from gates.doctor.draft.queue import queues_of
from gates.doctor.draft.writing import MANIFEST, refuse_to_overwrite, write
from gates.doctor.grants import LOGIN, grants
from gates.doctor.matching.presets import key_variable
from gates.doctor.report import as_json, as_text
from gates.doctor.said import only_extra_headers, placed
from gates.errors import CannotWork, ConfigError, UsageError
from gates.inputs import options as shared
from gates.reports.console import Console
from gates.stages.collection import sql_suite
from gates.text.inert import Terminal

TO_MEND = 10
DOORS = {"BASE_URL", "DATABASE_URL"}


def add_arguments(made: argparse.ArgumentParser, _name: str) -> None:
    shared.policy(made)
    shared.as_json(made)
    made.add_argument("--all", action="store_true", help="also every column and member that is as the contract says")
    made.add_argument("--write", action="store_true", help="draft gate.yaml (--policy FILE) and the manifest")
    made.add_argument("--force", action="store_true", help="change an existing gate.yaml; a copy is kept")
    made.add_argument(
        "--grants",
        nargs="?",
        const=LOGIN,
        metavar="LOGIN",
        help=f"only print the SQL that makes a login with the least rights ({LOGIN})",
    )


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """Examine and report. 0 if everything visible is there, 10 if something is to map or to mend. Raise ConfigError if
    there is nothing to look at, or a file is in the way; CannotWork if nothing answers.
    """
    unused = {*config.VARIABLES} - DOORS  # continue even if, say, a tenant's id has another type
    target = config.load_target({n: v for n, v in console.environ.items() if n not in unused})
    if not target.base_url and not target.database_url:
        raise ConfigError(
            "neither BASE_URL nor DATABASE_URL is set; allowed: at least one of them. Set what to look at"
        )
    if options.grants and not target.database_url:
        raise UsageError("--grants without DATABASE_URL; allowed: with a database, whose names the grants use. Set it")
    now = dt.datetime.now(dt.UTC)
    path = options.policy or Path(config.POLICY_FILE)
    if options.write:
        refuse_to_overwrite(path, force=options.force)
    file = config.load_policy(path if path.exists() else None, now.date())
    key = key_variable(console.environ)
    use(only_extra_headers(file.names, key), console.environ)  # look at the deployment without translation
    found = diagnose(target, contract(), file.names, file.plan.flag, key, console.environ.get("ADMIN_JWT", ""))
    remarks = (*found.remarks, *_not_set(found, console.environ))
    found = dataclasses.replace(found, objects=placed(found.objects, file.root), remarks=remarks)
    if not found.reached:
        raise CannotWork("; ".join(found.remarks))
    if options.grants:
        queues = [queue_of(file.scope.queue)] if file.scope.queue else queues_of(found.presets)
        console.result(Terminal.document(grants(found.schema, found.comparison, options.grants, file.names, queues)))
        return 0
    complete = _is_complete(found, file.scope)
    if options.json:
        console.result(Terminal.document(as_json(found, complete=complete)))
    else:
        shown = found if options.all else found.within(file.scope.claims or contract().claimable)
        console.result(as_text(shown, contract(), colour=console.colours_results, whole=options.all))
    if options.write:
        names = file.root.member("names")
        said = {part: value for part, value in file.names.given.items() if names and names.member(part)}
        _write(path, found, target, console, now, said)
    return 0 if complete else TO_MEND


def _not_set(found: Diagnosis, environ: Mapping[str, str]) -> list[str]:
    """What a run will want beside what the doctor looks with."""
    missing = [name for name in WANTED if not environ.get(name)]
    if not missing or not found.looks_like_it:
        return []
    return [f"not set: {', '.join(missing)}. `gate run` holds without them: docs/contract.md, section 1"]


def _is_complete(found: Diagnosis, scope: Scope) -> bool:
    """Whether nothing is left to do. A queue is complete if its library's tables are there."""
    if scope.is_queue:
        return scope.preset in {preset.name for preset in found.presets}
    return found.is_complete(scope.claims or contract().claimable)


def _write(
    path: Path, found: Diagnosis, target: Target, console: Console, now: dt.datetime, given: Mapping[str, Any]
) -> None:
    """Write the manifest, in the names of the draft, if there is a schema to read; then the draft. Writes nothing if
    nothing of a contract was seen: every line of such a draft would be wrong. given: `names` of the existing file.
    """
    if not found.is_any_of_it:
        console.say(f"{path}: not written, for nothing of a contract was seen. Look at DATABASE_URL and BASE_URL")
        return

    def read(text: str) -> Names:
        return policy_file.parse(f"version: 1\n{text}", str(path), Path(), now.date()).names

    def drafted(*, has_manifest: bool = False) -> tuple[str, Names]:
        """The draft combined with what gate.yaml says already, and its names."""
        text = draft(found, contract(), has_manifest=has_manifest)
        text = with_said(text, read(text).given, given) if given else text
        return text, read(text)

    manifest = path.with_name(MANIFEST)
    said = "no table of the contract was found"
    if found.looks_like_it:
        use(drafted()[1])
        words = ["write-manifest", "--output", str(manifest.resolve())]
        done = sql_suite(words, config.environment_of(target, console.environ))
        said = (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else ""
    if said:
        console.say(f"no manifest of this schema was written: {said}")
    written = write(path, drafted(has_manifest=not said)[0], "" if said else MANIFEST, now)
    if written.difference:
        console.say(Terminal.document(written.difference))
        console.say(f"{written.kept}: the file as it was")
    beside = "" if said else f", with {MANIFEST} beside it"
    console.say(f"{written.path}: written for review{beside}. Then: gate lint --target")
