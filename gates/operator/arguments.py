"""The parser of the command line, and what its options mean as values. Prints nothing itself (argparse does)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gates.evidence import TargetKind
from gates.inputs import values
from gates.inputs.values import option
from gates.operator.status_command import add_arguments as add_status_arguments
from gates.proof.trial import ProofPart
from gates.reports.console import put, shown
from gates.reports.formats import FORMATS
from gates.stack.plan import StackOptions
from gates.stack.up import add_arguments as add_stack_arguments
from gates.stack.up import options_of
from gates.stages import load_options
from gates.text.inert import Terminal
from gates.watch.command import add_arguments as add_watch_arguments

EXIT_CODES = """exit codes: 0 promote, 10 hold, 20 rollback, 21 rollback that could not be carried out, 2 usage,
3 configuration, 4 the gate itself could not work, 1 internal error, 130/143 interrupted"""

MOST_ITEMS = 50
"""Of one replay (contract, section 2)."""
COMPANY, FLAG, FOLDER, RELEASE = map(option, (values.company, values.flag_key, values.folder, values.release))
LIMIT = option(values.whole(0))


class Parser(argparse.ArgumentParser):
    """Prints help and errors as the console does: inert, and a closed pipe does no harm."""

    def _print_message(self, message: str, file: Any = None) -> None:
        put(file or sys.stderr, shown(Terminal.document(message)))


def parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    top = Parser(prog="gate", description="May this release go to the next rollout step?", epilog=EXIT_CODES)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, said: str, *parts: Callable[[argparse.ArgumentParser], None]) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=said, description=said, epilog=EXIT_CODES)
        for part in parts:
            part(made)
        return made

    parts = (_target, _deep, _disruptive, _state, _dry_run, _exit_zero)
    made = command("run", "the whole gate: collect, decide, act, report", *parts)
    made.add_argument(
        "--proof", type=Path, metavar="FILE", help="the proof.json to cite (that of the last whole proof)"
    )
    command(
        "up", "the embedded PostgreSQL, the reference service and its worker, until interrupted", add_stack_arguments
    )
    command("drill", "the drill stage alone", _target, _deep, _disruptive, _exit_zero)
    command("sql", "the SQL checks alone", _target, _deep, _state, _exit_zero, _manifest, _export("psql"))
    command("alerts", "the alert rules, now", _target, _deep, _exit_zero, _export("prometheus", "psql"))
    command("load", "the load stage alone", _target, _deep, _exit_zero, load_options.add_arguments)
    command("decide", "the verdict again, from the evidence and run.json in DIR", _folder, _exit_zero)
    command("verify", "the attestation of the verdict in DIR: exit code 0 verified, 10 not", _folder)
    report = command("report", "the reports again, from the evidence in DIR", _folder, _policy)
    report.add_argument("--print", choices=[f.name for f in FORMATS], help="to stdout instead of to DIR")
    made = command("lint", "policy, waivers, catalogue and SQL files, without a target", _policy)
    made.add_argument("--write", action="store_true", help="first write anew all that is generated from the code")
    made = command("explain", "what a check claims, what a breach costs, which faults turn it red", _json)
    made.add_argument("checks", nargs="*", metavar="ID", help="ids or globs, like 'drill/pause/*'; none: every check")
    made.add_argument("--promises", action="store_true", help="every promise, with its checks or why it has none")
    command("prove", "the gate against known-bad, healthy and degenerate deployments", _prove)
    command(
        "watch",
        "rounds of canary checks, with history and trends",
        _policy,
        _state,
        _json,
        _exit_zero,
        add_watch_arguments,
    )
    command(
        "status",
        "what the target shows now: lag, backlog, flags, releases",
        _policy,
        _state,
        _json,
        add_status_arguments,
    )
    made = command("promote", "one step up, by hand", _by_hand)
    made.add_argument(
        "--from",
        dest="verdict",
        type=Path,
        metavar="DIR",
        help="act on the signed promote verdict in DIR, for its release and target alone (GATE_VERIFY_KEY)",
    )
    command("rollback", "the flag off, by hand", _by_hand)
    command("emergency", "the flag off, all agents paused, replay limits cleared", _by_hand)
    command("sign", "sign the body of a replay; prints the curl command", _body)
    command("replay", "sign the body of a replay and send it", _body)
    budget = command("budget", "show budgets, or set one tenant's", _json)
    budget.add_argument("-c", "--company", type=COMPANY, metavar="UUID", help="one tenant")
    budget.add_argument("--daily", type=LIMIT, metavar="N", help="set the daily limit")
    budget.add_argument("--monthly", type=LIMIT, metavar="N", help="set the monthly limit")
    flags = command("flags", "show the flags, or step one", _json)
    step = flags.add_subparsers(dest="do", metavar="step").add_parser(
        "step", help="one step up, as `gate promote --flag KEY`", description="one step up", epilog=EXIT_CODES
    )
    step.add_argument("flag", type=FLAG, metavar="KEY", help="the flag")
    _by_hand(step, flag=False)
    command(
        "checklist",
        "the production-ready checklist, each box ticked by evidence or not ticked",
        _folder,
        _policy,
        _json,
    )
    return top


def stack_options(options: argparse.Namespace) -> StackOptions:
    """The options of `gate up`."""
    return options_of(options)


def sql_suite_words(options: argparse.Namespace) -> list[str]:
    """The words after `python -m sql_checks` for --export and --write-manifest."""
    if getattr(options, "write_manifest", None) is not None:
        return ["write-manifest", *(["--output", _place(options.write_manifest)] if options.write_manifest else [])]
    words = ["export", options.command, options.export]
    words += ["--output", _place(options.to)] if options.to else []
    return words + (["--runbooks", options.runbooks] if getattr(options, "runbooks", None) else [])


def _place(path: Path) -> str:
    """A path of the caller's working directory, for a process that runs in another one; - is stdout."""
    return str(path) if str(path) == "-" else str(path.resolve())


def _target(made: argparse.ArgumentParser) -> None:
    _policy(made)
    _json(made)
    made.add_argument(
        "--output", type=FOLDER, default=Path("gate-out"), metavar="DIR", help="where to write (gate-out)"
    )


def _prove(made: argparse.ArgumentParser) -> None:
    _policy(made)
    _json(made)
    suites = [*(s.value for s in ProofPart), "all"]
    made.add_argument("--suite", action="append", choices=suites, default=[], help="a part of the proof (all)")
    made.add_argument("--only", action="append", default=[], metavar="GLOB", help="ids of faults or trials")
    made.add_argument("--quick", action="store_true", help="fewer clean runs; a stage alone where it will do")
    made.add_argument(
        "--sample",
        type=option(values.whole(0)),
        default=0,
        metavar="N",
        help="only N faults, spread over the catalogue",
    )
    made.add_argument("--target", choices=[k.value for k in TargetKind], default="staging", help="what the gate may do")
    made.add_argument("--list", action="store_true", help="only list what would be examined")
    made.add_argument(
        "--keep", action="store_true", help="let later runs of the gate cite this proof (whole proofs only)"
    )
    made.add_argument(
        "--output", type=FOLDER, default=Path("proof-out"), metavar="DIR", help="where to write (proof-out)"
    )


def _policy(made: argparse.ArgumentParser) -> None:
    made.add_argument("--policy", type=Path, metavar="FILE", help="the release policy (gate.yaml)")


def _json(made: argparse.ArgumentParser) -> None:
    made.add_argument("--json", action="store_true", help="the result as JSON on stdout")


def _deep(made: argparse.ArgumentParser) -> None:
    made.add_argument("--deep", action="store_true", help="also what is slow: recovery, state machine, whole tables")


def _disruptive(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--disruptive",
        action="store_true",
        help="on staging, also drills that switch a live flag or pause the fleet for a moment",
    )


def _state(made: argparse.ArgumentParser) -> None:
    made.add_argument("--state", type=FOLDER, metavar="DIR", help="what must outlive a run (the policy's; gate-state)")


def _dry_run(made: argparse.ArgumentParser) -> None:
    made.add_argument("--dry-run", action="store_true", help="decide, and show what would be done to the flag")


def _exit_zero(made: argparse.ArgumentParser) -> None:
    made.add_argument("--exit-zero-on", choices=("hold",), help="for systems that know only pass or fail")


def _folder(made: argparse.ArgumentParser) -> None:
    made.add_argument("folder", type=Path, nargs="?", default=Path("gate-out"), metavar="DIR", help="output of a run")


def _manifest(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--write-manifest", type=Path, metavar="FILE", help="write the release's manifest from this target"
    )


def _export(*kinds: str) -> Callable[[argparse.ArgumentParser], None]:
    def add(made: argparse.ArgumentParser) -> None:
        made.add_argument("--export", choices=kinds, help="print the checks for that tool instead of running them")
        made.add_argument(
            "--to", type=Path, metavar="PATH", help="write the export there (a file; a folder for prometheus)"
        )
        if "prometheus" in kinds:
            made.add_argument(
                "--runbooks",
                type=option(values.http_url),
                metavar="URL",
                help="where you publish sql_checks/alerts/: alerts then link to its runbooks.md",
            )

    return add


def _by_hand(made: argparse.ArgumentParser, *, flag: bool = True) -> None:
    _policy(made)
    _json(made)
    _dry_run(made)
    made.add_argument("--reason", required=True, type=option(values.reason), help="why; it goes into the audit row")
    if flag:
        made.add_argument("--flag", type=FLAG, metavar="KEY", help="another flag than the policy's")
    made.add_argument(
        "--release", type=RELEASE, default="", metavar="R", help="the release that takes the step (RELEASE)"
    )


def _body(made: argparse.ArgumentParser) -> None:
    _json(made)
    made.add_argument("-c", "--company", type=COMPANY, metavar="UUID", help="the tenant (TEST_COMPANY_ID)")
    made.add_argument(
        "-m", "--max", type=option(values.whole(1, MOST_ITEMS)), metavar="N", help="at most so many items, 1 to 50"
    )
    made.add_argument("-k", "--key", type=option(values.idempotency_key), metavar="KEY", help="the idempotency key")
    made.add_argument("-d", "--dry-run", action="store_true", help="show what would be replayed")
    made.add_argument("-f", "--force", action="store_true", help="ignore retry_after")
    made.add_argument("-v", "--verbose", action="store_true", help="also print the body and the signature, on stderr")
    made.add_argument("--v2", action="store_true", help="sign the time, too: a captured request is soon worthless")
