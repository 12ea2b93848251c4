"""`gate decide`, `verify`, `report`, `checklist`: read the files of a run."""

import argparse
import dataclasses
import datetime as dt
import json
from contextlib import suppress

from gates import config, disk, record, reports
from gates.errors import UsageError
from gates.inputs import options as shared
from gates.operator import checklist
from gates.reports import attestation, pdf
from gates.reports.console import Console
from gates.reports.formats import FORMATS, html
from gates.reports.formats.rows import rows_of
from gates.reports.terminal import paint
from gates.stages import collection
from gates.text.inert import Terminal
from gates.verdict import Decision


def add_arguments(made: argparse.ArgumentParser, name: str) -> None:
    shared.folder(made)
    if name == "decide":
        shared.exit_zero(made)
    if name in {"report", "checklist"}:
        shared.policy(made)
    if name == "report":
        made.add_argument("--print", choices=[f.name for f in FORMATS], help="to stdout instead of to DIR")
        made.add_argument("--pdf", action="store_true", help=f"also {pdf.FILE}, printed by the system's Chromium")
    if name == "checklist":
        shared.as_json(made)


def carry_out(options: argparse.Namespace, console: Console) -> int:
    if options.command == "verify":
        return _verify(options, console)
    if not options.folder.is_dir() or disk.missing(options.folder / record.RUN):
        lost = f"there is no {options.folder / record.RUN}; allowed: the folder of a gate run"
        raise UsageError(f"{lost}. Run the gate, or name the folder of a run as DIR")
    return {"decide": _decide, "report": _report, "checklist": _checklist}[options.command](options, console)


def _decide(options: argparse.Namespace, console: Console) -> int:
    """Print the exact bytes of verdict.json; write the file if it is missing or differs."""
    verdict = record.recompute(options.folder)
    path = options.folder / record.VERDICT
    same = False
    with suppress(OSError):
        same = disk.read(path) == verdict.dump().encode()
    if not same:
        record.write(path, verdict.dump())
    console.verdict(verdict)
    console.say(f"{path}: {'as it was' if same else 'written anew'}; {verdict.title}: {verdict.reason}")
    return verdict.exit_code_unless(getattr(options, "exit_zero_on", None))


def _verify(options: argparse.Namespace, console: Console) -> int:
    """0 if the verdict is verified, whatever it says and of whichever release; 10 if nothing may act on it."""
    found = attestation.verify(options.folder, attestation.verify_key(console.environ))
    if found.recorded is None:
        console.result(Terminal("not verified: {}").format("; ".join(found.doubts)))
        return Decision.HOLD.exit_code
    verdict = found.recorded.verdict
    of = f"release {verdict.release or '(not known)'} on {verdict.target}, {verdict.finished_at}"
    console.result(Terminal("verified: {} ({}), signed as it stands").format(verdict.title, of))
    return 0


def _report(options: argparse.Namespace, console: Console) -> int:
    made = record.read(options.folder)
    file = config.load_policy(options.policy, dt.date.min)
    specs = made.specs(collection.with_own_checks(file, console.environ))
    if options.print:
        console.result(Terminal.document(reports.render(options.print, made.verdict, made.evidence, specs, made.run)))
        return 0
    for path in reports.write(options.folder, made.verdict, made.evidence, specs, made.run, {}, console.warn):
        console.result(str(path))
    if options.pdf:
        pdf.write_pdf(options.folder / html.FORMAT.file, options.folder / pdf.FILE)
        console.result(str(options.folder / pdf.FILE))
    return 0


def _checklist(options: argparse.Namespace, console: Console) -> int:
    file = config.load_policy(options.policy, dt.datetime.now(dt.UTC).date())
    made = record.read(options.folder)
    rows = rows_of(made.verdict, made.evidence, collection.with_own_checks(file, console.environ))
    ticked = checklist.tick(rows, file.settings.attestations)
    if options.json:
        members = [dataclasses.asdict(t) for t in ticked]
        console.result(Terminal.document(json.dumps(members, ensure_ascii=False)))
    else:
        for before, one in zip([None, *ticked], ticked, strict=False):
            if before is None or before.group != one.group:
                console.result(paint(one.group, "bold", on=console.colour))
            mark = paint("[x]", "green", on=console.colour) if one.ticked else paint("[ ]", "yellow", on=console.colour)
            console.result(Terminal("  {} {}: {}").format(mark, one.name, one.why))
    return 0 if all(t.ticked for t in ticked) else Decision.HOLD.exit_code
