"""`gate run`; `gate drill`, `sql`, `alerts`, `load`: one stage alone, or an export of it."""

import argparse
import contextlib
import dataclasses
import datetime as dt
import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path

from gates import catalogue, config, record
from gates.contract.names import Names
from gates.contract.remedies import remedy_of
from gates.decision.policy_file import PolicyFile
from gates.decision.rules import STAGES, Policy, RolloutPlan, again
from gates.deployment.dialect.current import use
from gates.deployment.redaction import hidden, hide_where_cut, scrubbing
from gates.deployment.target import Target
from gates.errors import ConfigError, UsageError
from gates.evidence import CheckSpec, Evidence, Outcome, TargetKind
from gates.evidence_file import read_lines
from gates.inputs import options as shared
from gates.inputs import values
from gates.inputs.shapes import nearest_id
from gates.inputs.values import option
from gates.operator.one_stage import run_stage
from gates.reports.console import Console
from gates.reports.terminal import groups_text, verdict_text
from gates.request import RunRequest
from gates.run import OWN, run_gate
from gates.stack.plan import StackOptions, default_release
from gates.stack.stack import reference_stack
from gates.stages import collection, load_options, load_process
from gates.stages.load import LOAD
from gates.stages.load_options import OF_A_RUN, LoadOptions
from gates.text.inert import Terminal
from gates.text.patterns import matches
from gates.verdict import Effect, Verdict, behind_text, grouped
from gates.watch import command as watch

SHORT = "drill/proof/*"
CANARY = "canary"
RESULTS = {
    "HMAC Authentication: Invalid -> 401, Valid -> 200": ("invalid-signature-refused", "valid-signature-accepted"),
    "JWT Role Guard: Admin JWT -> 200": ("admin-token-accepted",),
    "Rate Limiting: First 3 -> 200, 4th -> 429": ("fourth-call-refused",),
    "Idempotency: Duplicate -> short-circuit": ("duplicate-short-circuits",),
    "Safety Rails: Oversized batch -> 400": ("oversized-batch-refused",),
}
"""The expected results of the checklist's proof drill -> their checks."""

MOST_ANNOTATIONS = 9
"""GitHub shows ten annotations of a kind per step; one may be the headline."""

EXPORTS = {"sql": ("psql",), "alerts": ("prometheus", "psql")}


def add_arguments(made: argparse.ArgumentParser, name: str) -> None:
    shared.policy(made)
    shared.as_json(made)
    shared.output(made)
    made.add_argument("--deep", action="store_true", help="also the slow checks: recovery, state machine, whole tables")
    if name in {"run", "drill"}:
        made.add_argument(
            "--disruptive",
            action="store_true",
            help="on staging, also drills that switch a live flag or pause the fleet for a moment",
        )
    if name in {"run", "sql"}:
        shared.state(made)
    if name == "run":
        shared.dry_run(made)
        shared.actor(made)
        made.add_argument(
            "--proof", type=Path, metavar="FILE", help="the proof.json to cite (default: that of the last whole proof)"
        )
        made.add_argument(
            "--profile",
            choices=("whole", CANARY),
            default="whole",
            help="canary: the round of `gate watch --once`, in seconds, which never moves a flag up",
        )
    shared.exit_zero(made)
    if name == "sql":
        made.add_argument(
            "--write-manifest", type=Path, metavar="FILE", help="write the release's manifest from this target"
        )
    if name in {"drill", *EXPORTS}:
        said = "only these checks: an id, or a glob like 'drill/pause/*'; may be repeated"
        made.add_argument("--only", action="append", default=[], metavar="ID", help=said)
    if name == "drill":
        made.add_argument("--short", action="store_true", help="the checklist's ten-minute proof drill, in seconds")
    if name in EXPORTS:
        _export(made, EXPORTS[name])
    if name == "load":
        load_options.add_arguments(made)


def _export(made: argparse.ArgumentParser, kinds: tuple[str, ...]) -> None:
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


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """The exit code of the verdict, or of the export."""
    if getattr(options, "profile", "") == CANARY:
        return _canary(options, console)
    words = suite_words(options)
    if words:
        return _sql_suite(options, words, console)
    with _request(options, console) as request, scrubbing(request.out, hidden(request.target), OWN):
        verdict = run_gate(request) if options.command == "run" else run_stage(request, options.command)
    if options.command != "run" and not options.json:
        own = STAGES[options.command]
        seen = [e for e in read_lines(request.out / record.EVIDENCE) if e.check.startswith(own)]
        if getattr(options, "short", False):
            console.result(Terminal.of_lines(short_drill(seen)))
        else:
            console.say(groups_text(seen))
    return _show(verdict, request.policy.rollout, options, console)


def _canary(options: argparse.Namespace, console: Console) -> int:
    """One round of the watch, with the options that it shares with a run. Raise UsageError for those of a whole run."""
    whole = [f"--{name}" for name in ("deep", "disruptive", "proof") if getattr(options, name)]
    if whole:
        raise UsageError(f"{' and '.join(whole)} with --profile canary; allowed: with a whole run. Drop one")
    made = argparse.ArgumentParser()
    watch.add_arguments(made, "watch")
    shared_by_both = {name: getattr(options, name) for name in ("policy", "state", "json", "exit_zero_on", "output")}
    return watch.carry_out(argparse.Namespace(**{**vars(made.parse_args(["--once"])), **shared_by_both}), console)


def short_drill(seen: Sequence[Evidence]) -> list[str]:
    """The results of the checklist's proof drill, in its words: passed, failed or unknown, and why."""
    by_name = {e.check.rpartition("/")[2]: e for e in seen}
    lines = []
    for words, names in RESULTS.items():
        own = [by_name.get(name) for name in names]
        wrong = next((e for e in own if e is None or e.outcome is not Outcome.PASS), own[0])
        outcome = wrong.outcome.value if wrong is not None else Outcome.UNKNOWN.value
        why = f" ({wrong.message})" if wrong is not None and wrong.outcome is not Outcome.PASS else ""
        lines.append(f"{outcome.upper():<8}{words}{why}")
    return lines


def suite_words(options: argparse.Namespace) -> list[str]:
    """The arguments of `python -m sql_checks` for --export and --write-manifest; none if neither is given."""
    if getattr(options, "write_manifest", None) is not None:
        return ["write-manifest", *(["--output", _place(options.write_manifest)] if options.write_manifest else [])]
    if not getattr(options, "export", None):
        return []
    words = ["export", options.command, options.export, *(f"--only={pattern}" for pattern in options.only)]
    words += ["--output", _place(options.to)] if options.to else []
    return words + (["--runbooks", options.runbooks] if getattr(options, "runbooks", None) else [])


def _place(path: Path) -> str:
    """A path of the caller's working directory, for a process with another one; - is stdout."""
    return str(path) if str(path) == "-" else str(path.resolve())


def _sql_suite(options: argparse.Namespace, words: list[str], console: Console) -> int:
    """Run `python -m sql_checks` with the target's connection settings."""
    scope = config.load_policy(options.policy, dt.date.min).scope  # and the names, for the suite's process
    if options.command == "alerts" and scope.queue:
        words = [*words, "--queue", scope.queue, *(["--queue-alone"] if scope.is_queue else [])]
    target = config.load_target(console.environ)
    done = collection.sql_suite(words, config.environment_of(target, console.environ))
    if done.stdout:
        console.result(Terminal.document(done.stdout))
    if done.stderr:
        console.say(Terminal.document(done.stderr))
    return done.returncode


@contextlib.contextmanager
def _request(options: argparse.Namespace, console: Console) -> Iterator[RunRequest]:
    """What to run against which target; locks the output folder meanwhile."""
    today = dt.datetime.now(dt.UTC).date()
    file = config.load_policy(options.policy, today, getattr(options, "state", None))
    target = config.load_target(console.environ)
    specs = collection.with_own_checks(file, console.environ)
    with record.locked(options.output):
        yield from _of_target(options, console, file, target, specs)


def _of_target(
    options: argparse.Namespace, console: Console, file: PolicyFile, target: Target, specs: tuple[CheckSpec, ...]
) -> Iterator[RunRequest]:
    """The request for one target. Without BASE_URL and DATABASE_URL, the reference is started for it."""
    alone = options.command == "load"
    load_with = dataclasses.replace(
        LoadOptions.given(options) if alone else OF_A_RUN,
        slower_percent=file.settings.load_slower_percent,
        failed_percent=file.settings.load_failed_percent,
    )
    url_only = bool(load_with.url)
    if url_only:  # nothing of the target is looked at, or sent to that URL
        target = Target(target.kind, release=target.release, baseline_url=target.baseline_url)
    brings_up = not (target.base_url or target.database_url or url_only)
    if brings_up and (named := config.deployment_variables(console.environ)):
        said = f"neither BASE_URL nor DATABASE_URL has a value, but these variables are there: {', '.join(named)}"
        raise ConfigError(f"{said}; allowed: an address, or none of these, to judge the reference. Set BASE_URL")
    if brings_up or url_only:  # neither the reference nor a URL has the deployment's names
        use(Names())
    policy = file.policy(
        specs,
        TargetKind.REFERENCE if brings_up else target.kind,
        target.release,
        deep=options.deep,
        disruptive=getattr(options, "disruptive", False),
    )
    if alone:
        placed = {s.id: (s.area, s.also) for s in specs}  # a user's own threshold has no area
        own = [
            dataclasses.replace(s, area=area, also=also)
            for s in load_process.checks_of(target, load_with, options.output)
            for area, also in [placed.get(s.id, ("", ()))]
        ]
        policy = dataclasses.replace(policy, catalogue=(*(s for s in specs if not s.id.startswith(LOAD)), *own))
    only = (*getattr(options, "only", ()), *([SHORT] if getattr(options, "short", False) else []))
    if only:
        policy = dataclasses.replace(policy, catalogue=_chosen(policy, options.command, only))
    request = RunRequest(
        target=target,
        policy=policy,
        settings=file.settings,
        out=options.output,
        dry_run=getattr(options, "dry_run", False),
        only=only,
        actor=getattr(options, "actor", None) or config.actor(console.environ),
        environ=console.environ,
        load=lambda to, out: load_process.load(to, load_with, out, file.settings.load_timeout_s),
        begin_load=load_process.begun,
        after_load=None if alone else load_process.clean_up,
        url_only=url_only,
        proof=getattr(options, "proof", None),
        progress=console.progress,
        warn=console.warn,
    )
    if not brings_up:
        yield request
        return
    console.say("no BASE_URL and no DATABASE_URL: bringing up the reference")
    stack_options = StackOptions(release=target.release or default_release())
    with reference_stack(stack_options, console.environ) as stack:
        reference = _with_wishes_of(target, stack.info.target())
        console.hide = {**hidden(reference), **console.hide}
        hide_where_cut(console.hide)
        policy = request.policy_for(reference)
        yield dataclasses.replace(request, target=reference, policy=policy, let_go=stack.begin_stop)


def _chosen(policy: Policy, stage: str, only: tuple[str, ...]) -> tuple[CheckSpec, ...]:
    """The catalogue; of the stage's checks, those that match. Raise UsageError for a pattern that matches none."""
    own = [s.id for s in policy.of_stage(stage).catalogue]
    for pattern in only:
        if not fnmatch.filter(own, pattern):
            elsewhere = next((s for s in policy.catalogue if fnmatch.fnmatchcase(s.id, pattern)), None)
            do = f"Another one has: {again(elsewhere)}" if elsewhere else nearest_id(pattern, tuple(own))
            raise UsageError(f"--only {pattern!r} matches no check of the stage {stage}. {do}")
    return tuple(s for s in policy.catalogue if s.id not in own or matches(s.id, only))


def _with_wishes_of(given: Target, reference: Target) -> Target:
    """The reference, with those settings of the environment that are about the run and not a deployment."""
    wishes = ("other_passwords", "slack_webhook_url", "test_outbox", "test_dlq", "test_agents", "signing_key")
    return dataclasses.replace(reference, **{name: getattr(given, name) for name in wishes})


def _show(verdict: Verdict, plan: RolloutPlan, options: argparse.Namespace, console: Console) -> int:
    if options.json:
        console.verdict(verdict)
    else:
        said = verdict.contract.in_its_words
        promises = {spec.id: said(f"{spec.claim} What it costs: {spec.cost}") for spec in catalogue.load()}
        place, tinted = str(options.output), console.colours_results
        console.result(
            verdict_text(verdict, colour=tinted, folder=place, promises=promises, plan=plan, width=console.width)
        )
    if verdict.headline:
        console.annotate(verdict.headline, f"{verdict.title}: {verdict.reason}\n{verdict.action.by_hand}")
    if verdict.contract.text:
        console.annotate(verdict.outcome, verdict.contract.text, level="notice")
    for one, *others in grouped(verdict.deciding)[:MOST_ANNOTATIONS]:
        level = "error" if one.effect is Effect.ROLLBACK else "warning"
        behind = verdict.behind([one, *others]) + len(others)
        told = [
            one.said,
            *[behind_text(behind)] * bool(behind),
            remedy_of(one.check, one.outcome, verdict.contract, seen=one.message),
            one.reproduce and f"again: {one.reproduce}",
        ]
        console.annotate(f"{one.check} {one.outcome}", "\n".join(filter(None, told)), level=level)
    return verdict.exit_code_unless(getattr(options, "exit_zero_on", None))
