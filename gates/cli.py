"""The command line: argv in, exit code out. The module of a command is imported only when that command is called."""

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gates import gate_version
from gates.text.inert import Terminal
from gates.text.stream import put, shown

EXIT_CODES = """exit codes: 0 promote, 10 hold, 20 rollback, 21 rollback that could not be carried out, 2 usage,
3 configuration, 4 the gate itself could not work, 1 internal error, 128+N ended by signal N"""


@dataclass(frozen=True, slots=True)
class Command:
    """Its purpose, and the module with its `add_arguments(parser, name)` and `carry_out(options, console)`."""

    group: str
    said: str
    module: str


JUDGE, LOOK, ACT = "judge a release", "look", "act by hand"
AUTHOR, PROVE = "write checks and policies", "prove the gate"
RUN, RECORD = "gates.operator.run_command", "gates.operator.record_command"
HAND, TOOL = "gates.operator.hand_command", "gates.operator.tool_command"
AUTHORING = "gates.operator.author_command"

COMMANDS = {
    "run": Command(JUDGE, "the whole gate: collect, decide, act, report", RUN),
    "drill": Command(JUDGE, "the drill stage alone", RUN),
    "sql": Command(JUDGE, "the SQL checks alone", RUN),
    "alerts": Command(JUDGE, "the alert rules, now", RUN),
    "load": Command(JUDGE, "the load stage alone", RUN),
    "decide": Command(JUDGE, "the verdict again, from the evidence and run.json in DIR", RECORD),
    "verify": Command(JUDGE, "the attestation of the verdict in DIR: exit code 0 verified, 10 not", RECORD),
    "report": Command(JUDGE, "the reports again, from the evidence in DIR", RECORD),
    "checklist": Command(JUDGE, "the production-ready checklist, each box ticked by evidence or not ticked", RECORD),
    "status": Command(LOOK, "what the target shows now: lag, backlog, flags, releases", "gates.operator.status"),
    "history": Command(LOOK, "what was decided before, with trends", "gates.operator.history_command"),
    "serve": Command(LOOK, "the last verdict of a release over HTTP, for rollout controllers", "gates.operator.serve"),
    "doctor": Command(
        LOOK, "what a deployment has of the contract, under which names, and what is amiss", "gates.doctor.command"
    ),
    "watch": Command(LOOK, "rounds of canary checks, with history and trends", "gates.watch.command"),
    "promote": Command(ACT, "one step up, by hand", HAND),
    "rollback": Command(ACT, "the flag off, by hand", HAND),
    "emergency": Command(ACT, "the flag off, all agents paused, replay limits cleared", HAND),
    "resume": Command(ACT, "the way back: the emergency's pause ends, the flag is on at its first step", HAND),
    "sign": Command(ACT, "sign the body of a replay; prints the curl command", TOOL),
    "replay": Command(ACT, "sign the body of a replay and send it", TOOL),
    "budget": Command(ACT, "show budgets, or set one tenant's", TOOL),
    "flags": Command(ACT, "show the flags, step one, or switch one on", TOOL),
    "rehearse": Command(
        AUTHOR, "a folder of migrations on a throw-away PostgreSQL, before the deploy", "gates.rehearsal.command"
    ),
    "explain": Command(AUTHOR, "what a check claims, what a breach costs, which faults turn it red", AUTHORING),
    "lint": Command(AUTHOR, "policy, waivers, catalogue and SQL files, without a target", AUTHORING),
    "up": Command(
        PROVE,
        "the embedded PostgreSQL, the reference service and its worker, until interrupted",
        "gates.operator.up_command",
    ),
    "prove": Command(PROVE, "the gate against known-bad, healthy and degenerate deployments", "gates.proof.command"),
    "completion": Command(
        AUTHOR, "a script that completes commands and options in your shell", "gates.operator.completion"
    ),
}


class Parser(argparse.ArgumentParser):
    """Prints help and errors through the console: control characters are escaped, and a closed pipe is no error."""

    def _print_message(self, message: str, file: Any = None) -> None:
        put(file or sys.stderr, shown(Terminal.document(message)))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Report unknown arguments here, not in the parent: only this parser knows the options of the command."""
        found, rest = super().parse_known_args(args, namespace)
        for word in rest[:1]:
            option = word.startswith("-")
            near = difflib.get_close_matches(word.partition("=")[0], self._option_string_actions, 1) if option else []
            hint = f". Did you mean {near[0]!r}?" if near else ""
            self.error(f"{word!r} observed; allowed: {'the options above' if option else 'no further word'}{hint}")
        return found, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            near = difflib.get_close_matches(str(value), map(str, action.choices), 1)
            known = ", ".join(map(str, action.choices))
            hint = f". Did you mean {near[0]!r}?" if near else ""
            raise argparse.ArgumentError(action, f"{value!r} observed; allowed: {known}{hint}")


def parser(*names: str) -> Parser:
    """The parser of all commands. Only the named commands get their options, since these need an import."""
    top = Parser(
        prog="gate",
        usage="gate COMMAND [options]",
        description=_overview(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"`gate COMMAND --help` has the options.\n{EXIT_CODES}",
    )
    top.add_argument("--version", action="version", version=f"gate {gate_version()}")
    listed = argparse.SUPPRESS if set(names) != set(COMMANDS) else None  # people read the overview, programs the list
    commands = top.add_subparsers(dest="command", prog="gate", required=True, metavar="COMMAND", help=listed)
    for name, command in COMMANDS.items():
        made = commands.add_parser(name, help=command.said, description=command.said, epilog=EXIT_CODES)
        if name in names:
            _module(command).add_arguments(made, name)
            from gates.inputs import options as shared  # noqa: PLC0415  -- the overview does without it

            shared.general(made)
    return top


def _overview() -> str:
    """The commands, grouped by what a user wants to do."""
    lines = ["May this release go to the next rollout step?"]
    for group in dict.fromkeys(c.group for c in COMMANDS.values()):
        lines += ["", f"{group}:", *(f"  {n:<11}{c.said}" for n, c in COMMANDS.items() if c.group == group)]
    return "\n".join(lines)


def _module(command: Command) -> ModuleType:
    return importlib.import_module(command.module)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Prints no traceback, except for an internal error (exit code 1)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        parser().print_help(sys.stderr)
        return 2
    options = parser(*words[:1]).parse_args(words)
    from gates.operator.execution import execute  # noqa: PLC0415  -- help does without it

    return execute(_module(COMMANDS[options.command]).carry_out, options)


if __name__ == "__main__":
    sys.exit(main())
