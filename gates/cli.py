"""The command line: argv in, exit code out."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime as dt
import json
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from gates import catalogue, config, record, reports
from gates.act import operations
from gates.act.operations import Body
from gates.decision.rules import STAGES
from gates.deployment.redaction import hidden, redact
from gates.deployment.target import Target
from gates.errors import CannotWork, ConfigError, GateError, UsageError
from gates.evidence import TargetKind
from gates.evidence_file import read_lines
from gates.one_stage import run_stage
from gates.operator import arguments, checklist, explain, lint
from gates.operator.hand_command import by_hand
from gates.operator.status_command import status
from gates.proof.programs import list_faults
from gates.reports import attestation
from gates.reports.console import Console
from gates.reports.formats.rows import rows_of
from gates.reports.terminal import cell, groups_text, paint, table, verdict_text
from gates.request import RunRequest
from gates.run import run_gate
from gates.stack.errors import StackError, StackOptionError
from gates.stack.plan import StackOptions
from gates.stack.stack import reference_stack
from gates.stack.up import default_release, up
from gates.stages import collection, load_process
from gates.stages.load import LOAD
from gates.stages.load_options import OF_A_RUN, LoadOptions
from gates.text.foreign import json_value
from gates.text.inert import Terminal
from gates.verdict import Decision, Verdict
from gates.watch.command import watch

EXIT_INTERNAL = 1
LEFT = {"watch": "its rounds are in the history"}


class Interrupted(BaseException):
    """SIGTERM came; like KeyboardInterrupt it must reach the top."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Never a traceback, but for an internal error (exit code 1)."""
    console = Console.of_process(config.process_environment())
    console.hide = hidden(config.held(console.environ))  # of every command, whichever variables it needs
    options = arguments.parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see gates.__main__
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return int(COMMANDS[options.command](options, console))
    except (GateError, StackError) as error:
        code = error.exit_code if isinstance(error, GateError) else 3 if isinstance(error, StackOptionError) else 4
        console.say(f"gate {options.command}: {error}")
        return code
    except (KeyboardInterrupt, Interrupted) as came:
        word, code = ("interrupted", 130) if isinstance(came, KeyboardInterrupt) else ("terminated", 143)
        console.say(f"gate {options.command}: {word}; {LEFT.get(options.command, 'what is on disk says hold')}")
        return code
    except OSError as error:  # a full disk, a folder that is gone: nothing that a traceback would explain
        console.say(f"gate {options.command}: {error}; allowed: files that can be read and written. See to the disk")
        return CannotWork.exit_code
    except Exception as error:  # noqa: BLE001  -- the last resort: say what to report, and never look like a verdict
        console.say(Terminal.document("".join(traceback.format_exception(error))))
        console.say(f"gate {options.command}: internal error ({type(error).__name__}); please report the lines above")
        return EXIT_INTERNAL


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise Interrupted


# --- the gate ----------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace, console: Console) -> int:
    with _request(options, console) as request:
        verdict = run_gate(request)
    return _show(verdict, options, console)


def _stage(options: argparse.Namespace, console: Console) -> int:
    if getattr(options, "export", None) or getattr(options, "write_manifest", None) is not None:
        return _sql_suite(options, console)
    with _request(options, console) as request:
        verdict = run_stage(request, options.command)
    if not getattr(options, "json", False):
        own = STAGES[options.command]
        console.say(groups_text([e for e in read_lines(request.out / record.EVIDENCE) if e.check.startswith(own)]))
    return _show(verdict, options, console)


def _sql_suite(options: argparse.Namespace, console: Console) -> int:
    """What `python -m sql_checks` does, through the same door."""
    words = arguments.sql_suite_words(options)
    done = collection.sql_suite(words, config.environment_of(_target(console), console.environ))
    if done.stdout:
        console.result(Terminal.document(done.stdout))
    if done.stderr:
        console.say(Terminal.document(done.stderr))
    return done.returncode


@contextlib.contextmanager
def _request(options: argparse.Namespace, console: Console) -> Iterator[RunRequest]:
    """What to run against which target. Without BASE_URL and DATABASE_URL, the reference is brought up for it."""
    target = _target(console)
    today = dt.datetime.now(dt.UTC).date()
    file = config.load_policy(options.policy, today, getattr(options, "state", None))
    specs = collection.with_own_checks(file, console.environ)
    alone = options.command == "load"
    load_options = LoadOptions.given(options) if alone else OF_A_RUN
    url_only = alone and bool(options.url)
    if url_only:  # nothing of the target is looked at, and nothing of it is sent to that URL
        target = Target(target.kind, release=target.release)
    brings_up = not (target.base_url or target.database_url or url_only)
    policy = file.policy(
        specs,
        TargetKind.REFERENCE if brings_up else target.kind,
        target.release,
        deep=options.deep,
        disruptive=getattr(options, "disruptive", False),
    )
    if alone:
        placed = {s.id: (s.area, s.also) for s in specs}  # a threshold of the user's own has no area
        own = [
            dataclasses.replace(s, area=area, also=also)
            for s in load_process.checks_of(target, load_options, options.output)
            for area, also in [placed.get(s.id, ("", ()))]
        ]
        policy = dataclasses.replace(policy, catalogue=(*(s for s in specs if not s.id.startswith(LOAD)), *own))
    request = RunRequest(
        target=target,
        policy=policy,
        settings=file.settings,
        out=options.output,
        dry_run=getattr(options, "dry_run", False),
        environ=console.environ,
        load=lambda to, out: load_process.load(to, load_options, out, file.settings.load_timeout_s),
        after_load=None if alone else load_process.clean_up,
        url_only=url_only,
        proof=getattr(options, "proof", None),
        progress=console.progress,
        warn=console.say,
    )
    if not brings_up:
        yield request
        return
    console.say("no BASE_URL and no DATABASE_URL: bringing up the reference")
    stack_options = StackOptions(release=target.release or default_release())
    with reference_stack(stack_options, console.environ) as stack:
        reference = _with_wishes_of(target, stack.info.target())
        console.hide = {**hidden(reference), **console.hide}
        yield dataclasses.replace(request, target=reference, policy=request.policy_for(reference))


def _with_wishes_of(given: Target, reference: Target) -> Target:
    """The reference, with what the environment says about the run and not about a deployment."""
    return dataclasses.replace(
        reference,
        other_passwords=given.other_passwords,
        slack_webhook_url=given.slack_webhook_url,
        test_outbox=given.test_outbox,
        test_dlq=given.test_dlq,
        test_agents=given.test_agents,
        signing_key=given.signing_key,
    )


def _target(console: Console, needed: Sequence[str] = ()) -> Target:
    """The target that the environment describes; of `needed` variables alone, where any are named."""
    given = {name: text for name, text in console.environ.items() if not needed or name in needed}
    return config.load_target(given)


def _show(verdict: Verdict, options: argparse.Namespace, console: Console) -> int:
    folder = str(options.output) if getattr(options, "output", None) else ""
    if getattr(options, "json", False):
        console.verdict(verdict)
    else:
        costs = {spec.id: spec.cost for spec in catalogue.load()}
        console.result(verdict_text(verdict, colour=console.colours_results, folder=folder, costs=costs))
    if verdict.headline:
        console.annotate(verdict.headline, f"{verdict.reason}\n{verdict.action.by_hand}")
    return _exit_code(verdict, options)


def _exit_code(verdict: Verdict, options: argparse.Namespace) -> int:
    spared = getattr(options, "exit_zero_on", None) == "hold" and verdict.exit_code == Decision.HOLD.exit_code
    return 0 if spared else verdict.exit_code


def _up(options: argparse.Namespace, console: Console) -> int:
    return up(arguments.stack_options(options), console.environ, console.reveal, console.say)


def _decide(options: argparse.Namespace, console: Console) -> int:
    """Stdout has the very bytes of verdict.json; the file is written where it is missing or differs."""
    verdict = record.recompute(options.folder)
    path = options.folder / record.VERDICT
    same = path.exists() and path.read_bytes() == verdict.dump().encode()
    if not same:
        record.write(path, verdict.dump())
    console.verdict(verdict)
    console.say(f"{path}: {'as it was' if same else 'written anew'}; {verdict.title}: {verdict.reason}")
    return _exit_code(verdict, options)


def _verify(options: argparse.Namespace, console: Console) -> int:
    """0 where the verdict is verified, whatever it says; 10 where nothing may act on it."""
    found = attestation.verify(options.folder, attestation.verify_key(console.environ))
    if found.recorded is None:
        console.result(Terminal("not verified: {}").format("; ".join(found.doubts)))
        return Decision.HOLD.exit_code
    console.result(Terminal("verified: {}, signed as it stands").format(found.recorded.verdict.title))
    return 0


def _report(options: argparse.Namespace, console: Console) -> int:
    made = record.read(options.folder)
    file = config.load_policy(options.policy, dt.date.min)
    specs = made.specs(collection.with_own_checks(file, console.environ))
    if options.print:
        console.result(Terminal.document(reports.render(options.print, made.verdict, made.evidence, specs, made.run)))
        return 0
    for path in reports.write(options.folder, made.verdict, made.evidence, specs, made.run, {}):
        console.result(str(path))
    return 0


def _lint(options: argparse.Namespace, console: Console) -> int:
    if options.write:
        console.say(f"written: {', '.join(lint.write(console.environ))}")
    found = lint.lint(options.policy, console.environ, dt.datetime.now(dt.UTC).date())
    for problem in found.problems:
        console.result(problem)
    if found.problems:
        raise ConfigError(f"{len(found.problems)} problem(s) in {found.checks} checks; allowed: none. See above")
    console.say(f"{found.checks} checks, policy and waivers: no problem found")
    return 0


def _explain(options: argparse.Namespace, console: Console) -> int:
    specs = catalogue.load()
    if options.promises:
        rows = explain.promises(specs)
        lines = [json.dumps(rows)] if options.json else explain.promises_text(rows)
    else:
        found = explain.explain(specs, options.checks, list_faults(console.environ))
        lines = [json.dumps([e.to_json() for e in found])] if options.json else explain.as_text(found)
    console.result(Terminal.of_lines(lines))
    return 0


def _look(options: argparse.Namespace, console: Console) -> int:
    return {"watch": watch, "status": status}[options.command](options, _target(console), console)


def _prove(options: argparse.Namespace, console: Console) -> int:
    from gates.proof.command import prove  # noqa: PLC0415  -- a fifth of the start of every other command

    return prove(options, console)


# --- the operator's hand -----------------------------------------------------------------------------------------


def _by_hand(options: argparse.Namespace, console: Console) -> int:
    # a rollback needs the database alone: what is wrong with another variable does not keep it from happening
    needed = ("DATABASE_URL", "RELEASE") if options.command in {"rollback", "emergency"} else ()
    return by_hand(options, _target(console, needed), console)


def _body(options: argparse.Namespace, target: Target) -> Body:
    company = options.company or target.test_company_id
    if not company:
        raise UsageError("no company: -c is not given and TEST_COMPANY_ID is not set; allowed: a UUID. Give -c")
    return Body(company, options.max, options.key, options.dry_run, options.force)


def _sign(options: argparse.Namespace, console: Console) -> int:
    target = _target(console)
    signed = operations.sign(target, _body(options, target), _seconds(options))
    if options.json:
        console.result(Terminal.document(json.dumps(vars_of(signed), ensure_ascii=False)))
        return 0
    if options.verbose:
        console.say(Terminal.of_lines((f"body:      {signed.body}", f"signature: {signed.signature}")))
    console.result(signed.curl)
    return 0


def _replay(options: argparse.Namespace, console: Console) -> int:
    target = _target(console)
    answer = operations.replay(target, _body(options, target), _seconds(options))
    if options.verbose:
        console.say(f"status {answer.status} in {answer.elapsed_ms:.1f} ms, request {answer.header('x-request-id')}")
    body = answer.body.decode("utf-8", "backslashreplace")
    console.result(body if json_value(body) is None else Terminal.document(body))  # what is no JSON is one line
    return 0 if answer.status == 200 else Decision.HOLD.exit_code


def _seconds(options: argparse.Namespace) -> int | None:
    return int(dt.datetime.now(dt.UTC).timestamp()) if options.v2 else None


def vars_of(value: Any) -> dict[str, Any]:
    """The members of a frozen dataclass."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _budget(options: argparse.Namespace, console: Console) -> int:
    target = _target(console)
    if options.daily is not None or options.monthly is not None:
        if not options.company:
            raise UsageError("--daily or --monthly without a tenant; allowed: with -c COMPANY. Give -c")
        rows = [operations.set_budget(target, options.company, options.daily, options.monthly)]
    else:
        rows = operations.budgets(target, options.company)
    return _rows(rows, options, console)


def _flags(options: argparse.Namespace, console: Console) -> int:
    if options.do == "step":
        return _by_hand(options, console)
    return _rows(operations.flags(_target(console)), options, console)


def _rows(rows: Sequence[Mapping[str, Any]], options: argparse.Namespace, console: Console) -> int:
    titles = list(rows[0]) if rows else []
    cells = [[redact(row[title], console.hide) for title in titles] for row in rows]
    if options.json:
        members = [dict(zip(titles, row, strict=True)) for row in cells]
        console.result(Terminal.document(json.dumps(members, ensure_ascii=False)))
    elif rows:
        console.result(table([[cell(value) for value in row] for row in cells], titles))
    else:
        console.say("no rows")
    return 0


def _checklist(options: argparse.Namespace, console: Console) -> int:
    file = config.load_policy(options.policy, dt.datetime.now(dt.UTC).date())
    made = record.read(options.folder)
    rows = rows_of(made.verdict, made.evidence, collection.with_own_checks(file, console.environ))
    ticked = checklist.tick(rows, file.settings.attestations)
    if options.json:
        console.result(Terminal.document(json.dumps([vars_of(t) for t in ticked], ensure_ascii=False)))
    else:
        for one in ticked:
            mark = paint("[x]", "green", on=console.colour) if one.ticked else paint("[ ]", "yellow", on=console.colour)
            console.result(Terminal("{} {}: {}").format(mark, one.name, one.why))
    return 0 if all(t.ticked for t in ticked) else Decision.HOLD.exit_code


COMMANDS = {
    "run": _run,
    "up": _up,
    "drill": _stage,
    "sql": _stage,
    "alerts": _stage,
    "load": _stage,
    "decide": _decide,
    "verify": _verify,
    "report": _report,
    "lint": _lint,
    "explain": _explain,
    "prove": _prove,
    "watch": _look,
    "status": _look,
    "promote": _by_hand,
    "rollback": _by_hand,
    "emergency": _by_hand,
    "sign": _sign,
    "replay": _replay,
    "budget": _budget,
    "flags": _flags,
    "checklist": _checklist,
}

if __name__ == "__main__":
    sys.exit(main())
