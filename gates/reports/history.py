"""The decisions about a target, as tables for a terminal and as a page with trends. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gates.evidence import JsonValue, shown_time
from gates.past_decisions import PastDecision
from gates.reports.page import NOTHING, document, listing, outcome, section
from gates.reports.pictures import line, proportions, strip
from gates.reports.sentences import percent
from gates.reports.terminal import cell, table
from gates.text.inert import Html, Terminal
from gates.text.quantity import with_unit
from gates.verdict import Decision

SHOWN_AS = {Decision.PROMOTE: "pass", Decision.HOLD: "unknown", Decision.ROLLBACK: "fail"}
WHEN = "created_at"
MOST_RUNS = 200
MOST_LINES = 20
MOST_REASON = 300


@dataclass(frozen=True, slots=True)
class TargetHistory:
    """A target by its name in the state folder: its runs in order, and the audit trail of its flag. steps: the audit
    rows, the newest first. unseen: why they were not read.
    """

    target: str
    runs: Sequence[PastDecision]
    steps: Sequence[Mapping[str, JsonValue]] = ()
    unseen: str = ""

    @property
    def title(self) -> str:
        """Its name, and its kind according to the last run that knew it."""
        kinds = [r.target for r in self.runs if r.target]
        return f"{self.target} ({kinds[-1]})" if kinds else self.target

    def to_json(self) -> dict[str, JsonValue]:
        steps: dict[str, JsonValue] = (
            {"unseen": self.unseen} if self.unseen else {"steps": [dict(s) for s in self.steps]}
        )
        return {"target": self.target, "runs": [r.to_json() for r in self.runs], **steps}


def tables(history: TargetHistory) -> Terminal:
    """The newest runs and steps first."""
    runs = [
        (
            shown_time(r.finished_at or r.started_at),
            r.release,
            r.decision.value + " (dry run)" * r.dry_run,
            _flag(r),
            f"{r.passed}/{r.failed}/{r.unknown}",
            cell(r.reason),
        )
        for r in reversed(history.runs[-MOST_LINES:])
    ]
    titles = ("decided", "release", "decision", "flag", "pass/fail/unknown", "reason")
    head = f"target {history.title}: {with_unit(len(history.runs), 'runs')}"
    parts = [Terminal.of_lines((head,)), table(runs, titles)]
    if history.steps:
        names = list(history.steps[0])
        rows = [[cell(step.get(name)) for name in names] for step in history.steps[:MOST_LINES]]
        parts += [Terminal.of_lines(("", "what was done to the flag, by its audit rows")), table(rows, names)]
    elif history.unseen:
        parts.append(Terminal.of_lines(("", f"the audit trail was not read: {history.unseen}")))
    return Terminal("").join(parts)


def page(histories: Sequence[TargetHistory]) -> Html:
    runs = [r for h in histories for r in h.runs]
    counts = Counter(r.decision for r in runs)
    said = ", ".join(f"{counts[d]} {d.value}" for d in Decision)
    bar = proportions({SHOWN_AS[d]: counts[d] for d in Decision}, said)
    last = max(runs, key=lambda r: r.finished_at, default=None)
    shown = last.decision.value if last else Decision.HOLD.value
    header = Html('<header class="{}"><div><h1>{}</h1><p class="facts">{}</p>{}</div></header>').format(
        shown,
        shown if last else "nothing was decided yet",
        f"The last decision. {with_unit(len(runs), 'runs')}: {said}." if last else "",
        bar,
    )
    return document("decisions of the gate", header, NOTHING.join(map(_target, histories)), scripted=False)


def _target(history: TargetHistory) -> Html:
    return section(f"Target {history.title}", _trends(history.runs), _runs(history.runs), _steps(history))


def _trends(runs: Sequence[PastDecision]) -> Html:
    """Decisions, unknown checks, and the room at the nearest limit, over time."""
    timed = [(r.finished.timestamp(), r) for r in runs if r.finished is not None]
    if len(timed) < 2:
        return NOTHING
    start, end = timed[0][0], timed[-1][0]
    room = [(at, 100 * r.room) for at, r in timed if r.room is not None]
    unknown = [(at, float(r.unknown)) for at, r in timed]
    first, newest = (shown_time(timed[i][1].finished_at) for i in (0, -1))
    pictures = (
        (
            "Decisions",
            strip([(at, SHOWN_AS[r.decision]) for at, r in timed], start, end, _counted(runs)),
            _counted(runs),
        ),
        (
            "Unknown checks",
            line(unknown, start, end, (), _span("unknown checks", unknown)),
            _span("unknown checks", unknown),
        ),
        ("Room at the nearest limit", line(room, start, end, (), _span("%", room)), _span("%", room)),
    )
    rows = NOTHING.join(Html("<tr><th>{}</th><td>{}</td><td>{}</td></tr>").format(*one) for one in pictures if one[1])
    return Html('<p class="claim">{} to {}</p><table class="limits">{}</table>').format(first, newest, rows)


def _counted(runs: Sequence[PastDecision]) -> str:
    counts = Counter(r.decision.value for r in runs)
    return ", ".join(f"{counts[d.value]} {d.value}" for d in Decision)


def _span(what: str, points: Sequence[tuple[float, float]]) -> str:
    values = [v for _, v in points]
    return f"from {min(values):.0f} to {max(values):.0f}, now {values[-1]:.0f} {what}" if values else ""


def _runs(runs: Sequence[PastDecision]) -> Html:
    dry = Html("{} (dry run)")
    return listing(
        ("decided", "release", "decision", "flag", "unknown", "reason"),
        (
            (
                shown_time(r.finished_at) or f"begun {shown_time(r.started_at)}",
                r.release or "not said",
                dry.format(outcome(r.decision.value)) if r.dry_run else outcome(r.decision.value),
                _flag(r),
                r.unknown,
                r.reason[:MOST_REASON],
            )
            for r in reversed(runs[-MOST_RUNS:])
        ),
    )


def _flag(run: PastDecision) -> str:
    if run.action == "none":
        return percent(run.after) if run.after is not None else ""
    moved = f"{percent(run.before)} → {percent(run.after)} ({run.result})"
    return f"not known ({run.result})" if run.before is run.after is None else moved


def _steps(history: TargetHistory) -> Html:
    if history.unseen:
        return Html("<p>The audit trail was not read: {}.</p>").format(history.unseen)
    if not history.steps:
        return NOTHING
    names = list(history.steps[0])
    rows = [[_audited(name, step.get(name)) for name in names] for step in history.steps]
    titles = ["when" if name == WHEN else name for name in names]
    return Html("<h3>What was done to the flag, by its audit rows</h3>{}").format(listing(titles, rows))


def _audited(name: str, value: JsonValue) -> str:
    """A cell of an audit row; a flag that is off is 0, not empty."""
    if value is None:
        return ""
    return shown_time(str(value)) if name == WHEN else str(value)
