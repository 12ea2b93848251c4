"""Text for terminals: progress, the verdict in a few lines, a table. Pure: the caller prints."""

import textwrap
from collections.abc import Mapping, Sequence

from gates.contract.remedies import remedy_of
from gates.decision.rules import RolloutPlan
from gates.evidence import Evidence, JsonValue
from gates.reports.sentences import beside_causes, brief, percent, recovery_lines, short_list
from gates.stages.context import Progress
from gates.text.inert import Terminal
from gates.verdict import BESIDE, Action, Decision, Finding, Verdict, behind_text, grouped, named

COLOURS = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}
DECISION_COLOURS = {Decision.PROMOTE: "green", Decision.HOLD: "yellow", Decision.ROLLBACK: "red"}
MOST_FINDINGS = 8
WIDTH = 110
WIDEST_CELL = 60


def paint(text: str, colour: str, *, on: bool) -> Terminal:
    return Terminal("\x1b[{}m{}\x1b[0m").format(COLOURS[colour], text) if on else Terminal.escape(text)


def progress_line(progress: Progress, *, colour: bool) -> Terminal:
    """One line about a stage: a mark, its name, its checks by outcome, the seconds."""
    bad = progress.failed or progress.error
    mark = "·" if not progress.done else "✗" if bad else "?" if progress.unknown else "✓"
    tint = "dim" if not progress.done else "red" if bad else "yellow" if progress.unknown else "green"
    known = bool(progress.expected) and not progress.done
    counts = [f"{progress.passed} passed of about {progress.expected}" if known else f"{progress.passed} passed"]
    counts += [f"{progress.failed} failed"] * bool(progress.failed)
    counts += [f"{progress.unknown} unknown"] * bool(progress.unknown)
    error = f"  {progress.error}" if progress.error else ""
    line = Terminal("{} {:<12} {:<50} {:6.1f} s{}")
    return line.format(paint(mark, tint, on=colour), progress.stage, ", ".join(counts), progress.seconds, error)


def verdict_text(
    verdict: Verdict,
    *,
    colour: bool,
    folder: str = "",
    promises: Mapping[str, str] | None = None,
    plan: RolloutPlan | None = None,
    width: int = WIDTH,
) -> Terminal:
    """What happened, was done and is to do; the deciding causes, the unknown ones, the counts. promises: check -> what
    it promises and what a failure means for the users.
    """
    promises, plan = promises or {}, plan or RolloutPlan()
    told = brief(Terminal, verdict, promises, plan)
    head = paint(verdict.outcome.upper(), DECISION_COLOURS[verdict.shown_as], on=colour)
    within = f", {verdict.contract.text}" if verdict.contract.text else ""
    lines: list[str] = ["", *_alarm(verdict.headline, colour=colour)]
    lines.append(Terminal("{}{}: {}").format(paint(head, "bold", on=colour), within, told.lead or told.happened))
    lines += _wrapped(Terminal("happened: {}").format(told.happened), width) if told.lead else []
    lines += _wrapped(Terminal("done: {}").format(told.done), width)
    lines += _wrapped(Terminal("now: {}").format(told.now), width)
    for index, group in enumerate((groups := grouped(verdict.deciding))[:MOST_FINDINGS]):
        promise = promises.get(group[0].check, "") if index else ""  # the first one's is in the headline
        lines += _findings(group, promise, verdict, told.now, colour=colour, width=width)
    if len(groups) > MOST_FINDINGS:
        lines.append(f"  … and {sum(map(len, groups[MOST_FINDINGS:]))} more")
    for outcome in BESIDE:
        lines += _beside(verdict, outcome, width)
    lines += [f"  ends when: {one}" for one in short_list(verdict.ends_when, MOST_FINDINGS)]
    lines += _act(verdict.action)
    counts = verdict.counts
    said = f"{counts.passed} passed, {counts.failed} failed, {counts.unknown} unknown"
    lines.append(paint(f"  {said}, {counts.not_applicable} not applicable", "dim", on=colour))
    lines += [paint(f"  {remark}", "dim", on=colour) for remark in beside_causes(verdict, plan)]
    if folder:
        lines.append(paint(f"  evidence and report: {folder}", "dim", on=colour))
    return Terminal.of_lines(lines)


def _wrapped(text: str, width: int, indent: str = "  ", hang: str = "  ") -> list[str]:
    """Lines of that width; continuation lines are indented. No word is broken: addresses and names are copied."""
    rows = textwrap.TextWrapper(width - len(indent), subsequent_indent=hang, break_long_words=False)
    rows.break_on_hyphens = False
    return [f"{indent}{row}" for row in rows.wrap(Terminal.escape(text))]


def _beside(verdict: Verdict, outcome: str, width: int) -> list[str]:
    """What else failed or is unknown, one line per cause."""
    groups, also = verdict.beside(outcome), BESIDE[outcome]
    lines: list[str] = []
    for group in groups[:MOST_FINDINGS]:
        names = named(group, verdict.behind(group))
        lines += _wrapped(Terminal("{}: {}: {}").format(also, names, group[0].said), width)
    left = sum(map(len, groups[MOST_FINDINGS:]))
    return [*lines, *[Terminal("  {}: {} more").format(also, left)] * bool(left)]


def action_text(action: Action) -> Terminal:
    """What was done by hand."""
    before, after, result = action.from_percent, action.to_percent, action.result.replace("_", " ")
    moved = "" if before is after is None else f", {percent(before)} → {percent(after)}"
    done = result if action.kind == "none" else f"{action.kind} {result}{moved}"
    said = f"{done}: {action.message}" if action.message else done
    return Terminal.of_lines([*_alarm(action.headline, colour=False), said, *_act(action)])


def _alarm(headline: str, *, colour: bool) -> list[Terminal]:
    return [paint(paint(headline, "red", on=colour), "bold", on=colour)] * bool(headline)


def _act(action: Action) -> list[str]:
    """The result of each part, what was proved after it, and what is left to do by hand."""
    lines = [f"  {s.name}: {s.result}, {s.message}" for s in action.steps]
    lines += [f"  {name}: {value}" for name, value in recovery_lines(action.recovery)]
    return [*lines, *["  run this by hand:"] * bool(action.by_hand), *(f"    {s}" for s in action.by_hand.splitlines())]


def _findings(
    group: Sequence[Finding], promise: str, verdict: Verdict, now: str, *, colour: bool, width: int
) -> list[str]:
    finding, behind = group[0], verdict.behind(group)
    names = named(group) + " for the same reason" * (len(group) > 1)
    tint = "red" if finding.outcome == "fail" else "yellow"
    said = _wrapped(finding.said, width, "      ", "")
    broke = f"promise: {promise}" if promise and finding.outcome == "fail" else ""
    remedy = remedy_of(finding.check, finding.outcome, verdict.contract, seen=finding.message)
    do = f"do: {remedy} More: gate explain {finding.check}" if remedy else ""
    do = f"more: gate explain {finding.check}" if remedy and Terminal.prose(remedy) in now else do
    return [
        Terminal("  {} {}").format(paint(finding.outcome, tint, on=colour), names),
        *said[:3],
        *["      …"] * (len(said) > 3),
        *_wrapped(broke, width, "      ", ""),
        *([f"      {behind_text(behind)}"] * bool(behind)),
        *_wrapped(do, width, "      ", ""),
        *[Terminal("      again: {}").format(paint(finding.reproduce, "dim", on=colour))] * bool(finding.reproduce),
    ]


def groups_text(evidence: Sequence[Evidence]) -> Terminal:
    """Checks and seconds of each group, the slowest first. The seconds are summed over checks that run in parallel."""
    groups: dict[str, list[Evidence]] = {}
    for line in evidence:
        if line.check.count("/") > 1:
            groups.setdefault(line.check.rsplit("/", 1)[0], []).append(line)
    rows = [
        (name, len({e.check for e in seen}), sum(e.duration_ms for e in seen) / 1000) for name, seen in groups.items()
    ]
    ordered = sorted(rows, key=lambda r: (-r[2], r[0]))
    cells = [(name, checks, f"{seconds:.1f} s") for name, checks, seconds in ordered]
    return table(cells, ("group", "checks", "time")) if cells else Terminal("")


def table(rows: Sequence[Sequence[object]], titles: Sequence[str]) -> Terminal:
    """Columns as wide as their widest cell."""
    cells = [[Terminal.escape("" if c is None else c) for c in row] for row in [titles, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(titles))]
    lines = (Terminal("  ").join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)
    return Terminal.of_lines(lines)


def cell(value: JsonValue) -> Terminal:
    """A value in a table. Redact it first: it is cut here, and redaction does not recognise part of a secret."""
    if value is None:
        return Terminal("-")
    text = Terminal.escape(f"{value:.{0 if abs(value) >= 1000 else 3}f}" if isinstance(value, float) else value)
    return text if len(text) <= WIDEST_CELL else Terminal("{}…").format(text[: WIDEST_CELL - 1])
