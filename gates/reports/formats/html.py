"""report.html: the verdict in plain sentences first, then why, then the pictures, then every check. Pure."""

import functools
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from gates.contract.remedies import remedy_of
from gates.evidence import JsonValue, shown_time
from gates.reports.formats import charts
from gates.reports.formats.format import Format, ReportSource
from gates.reports.formats.rows import LOAD, OUTCOMES, Row, proof_of
from gates.reports.how_checked import query_of
from gates.reports.page import NOTHING, copied, document, outcome, section, tools
from gates.reports.pictures import proportions
from gates.reports.sentences import brief, percent, recovery_lines, short_list
from gates.stages.suite import ROOT
from gates.text.inert import Html
from gates.text.quantity import with_unit
from gates.verdict import BESIDE, Finding, Verdict, behind_text, blocked_by_cause, grouped, named

MOST_WITNESS = 6000
MOST_CARDS, MOST_LINES = 10, 12
"""How many causes are told in full, and how many on a line each; the others are folded."""
MOST_ENDS = 12
MOST_NAMES = 400
TOLD = {"request": "The request", "twin": "Its nearest passing twin"}
Group = Sequence[Finding]


def html(source: ReportSource) -> Html:
    verdict, causes = source.verdict, Causes(source)
    title = f"{verdict.title}: {verdict.release or 'release not said'}"
    ends = (Html("<li>{}</li>").format(one) for one in short_list(verdict.ends_when, MOST_ENDS))
    parts = [
        section("Run this by hand", copied(verdict.action.by_hand, "the SQL")),
        section("Why", causes.told(grouped(verdict.deciding))),
        *(section(f"{also.capitalize()}, by cause", causes.told(verdict.beside(o), 0)) for o, also in BESIDE.items()),
        section("The hold ends when", Html("<ul>{}</ul>").format(NOTHING.join(ends)) if verdict.ends_when else NOTHING),
        section("After the rollback", _table(recovery_lines(verdict.action.recovery))),
        section("In pictures", _grid(charts.figures(source))),
        section("Numbers against their limits", charts.limits(source)),
        _checks(source.rows, causes),
        section("Where the time went", charts.times(source)),
        _footer(verdict, source.run),
    ]
    return document(title, _header(source), NOTHING.join(parts))


def _header(source: ReportSource) -> Html:
    verdict, counts = source.verdict, source.verdict.counts
    told = brief(Html, verdict, source.promises, source.plan)
    sentences = {"What happened": told.happened, "What was done": told.done, "What to do now": told.now}
    lines = NOTHING.join(
        Html("<div><dt>{}</dt><dd>{}</dd></div>").format(n, _unbroken(Html.prose(t))) for n, t in sentences.items()
    )
    lead = Html('<p class="lead">{}</p>').format(_unbroken(told.lead)) if told.lead else NOTHING
    judged = counts.passed + counts.failed + counts.unknown + counts.not_applicable
    unknown = counts.unknown if judged else len(source.rows)  # an unfinished run judged nothing
    numbers = {"pass": counts.passed, "fail": counts.failed, "unknown": unknown}
    said = f"{counts.passed} checks passed, {counts.failed} failed, {unknown} are unknown"
    action = verdict.action
    before, after = ("unknown" if p is None else percent(p) for p in (action.from_percent, action.to_percent))
    stands = f"{before} → {after}, {action.result.replace('_', ' ')}"
    unchanged = "not changed" if action.from_percent is None else f"{before}, not changed"
    facts = {
        "release": verdict.release or "not said",
        "target": verdict.target,
        "finished": shown_time(verdict.finished_at) or "no",
        "flag": stands if action.kind != "none" else unchanged,
        "passed": str(counts.passed),
        "failed": str(counts.failed),
        "unknown": str(unknown),
        "not applicable": str(counts.not_applicable),
        **({"not required": str(len(verdict.not_required))} if verdict.not_required else {}),
    }
    listed = NOTHING.join(Html("<span>{} <b>{}</b></span>").format(name, value) for name, value in facts.items())
    within = (
        Html('<small class="within">{}</small>').format(verdict.contract.text) if verdict.contract.text else NOTHING
    )
    title = Html("{}{}").format(verdict.outcome, within)
    alarm = Html('<p class="alarm" role="alert">{}</p>').format(verdict.headline) if verdict.headline else NOTHING
    remarks = NOTHING.join(Html('<p class="facts">{}</p>').format(remark) for remark in verdict.remarks)
    return Html(
        '<header class="{}"><div>{}<h1>{}</h1>{}<dl class="brief">{}</dl><div class="facts">{}</div>{}{}</div></header>'
    ).format(verdict.shown_as.value, alarm, title, lead, lines, listed, proportions(numbers, said), remarks)


def _unbroken(text: Html) -> Html:
    """Keep a number and its percent sign on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


class Causes:
    """The findings by cause: those that decided, and those that are only unknown."""

    def __init__(self, source: ReportSource) -> None:
        self._verdict = source.verdict
        self._rows = {row.check: row for row in source.rows}
        groups = grouped([f for f in source.verdict.findings if not f.blocked_by])
        self._cause = {f.check: group[0].check for group in groups for f in group}
        self._cause |= {f.check: f.blocked_by for f in source.verdict.findings if f.blocked_by}
        self._blocked = blocked_by_cause(source.verdict.findings)

    def of(self, check: str) -> str:
        """The check that is the cause of this one; empty for a pass."""
        return self._cause.get(check, "")

    def _behind(self, group: Group) -> int:
        return sum(self._blocked[f.check] for f in group)

    def told(self, groups: Sequence[Group], most: int = MOST_CARDS) -> Html:
        """The first causes in full, every other one on a line; of many lines the last are folded."""
        known = [g for g in groups if all(f.check in self._rows for f in g)]
        cards = NOTHING.join(self._card(g) for g in known[:most])
        lines = [self._line(g) for g in known[most:]]
        shown, folded = (NOTHING.join(part) for part in (lines[:MOST_LINES], lines[MOST_LINES:]))
        listed = cards + (Html("<ul>{}</ul>\n").format(shown) if shown else NOTHING)
        more = Html("<details><summary>and {} more causes</summary><ul>{}</ul></details>\n")
        return listed + (more.format(len(lines) - MOST_LINES, folded) if folded else NOTHING)

    def _line(self, group: Group) -> Html:
        first = self._rows[group[0].check]
        before, _, after = named(group, self._behind(group)).partition(first.check)
        return Html('<li>{} {}<a href="#{}">{}</a>{}: {}</li>').format(
            outcome(first.outcome), before, first.anchor, first.check, after, first.message or first.compared
        )

    def _card(self, group: Group) -> Html:
        row, *others = (self._rows[f.check] for f in group)
        behind = self._behind(group)
        before = named(group).partition(row.check)[0]
        about = replace(row, claim="", cost="") if before else row  # one check's promise is not what they share
        remedy = remedy_of(row.check, row.outcome, self._verdict.contract, seen=row.message)
        do = Html('<p class="do"><b>What to do:</b> {} More: <code>gate explain {}</code></p>').format(
            Html.prose(remedy), row.check
        )
        names = Html(", ").join(Html("<code>{}</code>").format(r.check) for r in others[:MOST_NAMES])
        alike = Html("<details><summary>and {} more for the same reason</summary><p>{}</p></details>")
        show = Html('<p class="claim">{}. <button type="button" data-filter="cause:{}">Show them</button></p>')
        return Html(
            '<article class="finding {}" id="why-{}"><h3>{} {}<a href="#why-{}">{}</a></h3>'
            "<p>{}</p>{}{}{}{}</article>\n"
        ).format(
            row.outcome,
            row.anchor,
            outcome(row.outcome),
            before,
            row.anchor,
            row.check,
            Html.prose(row.message or row.compared),
            alike.format(len(others), names) if others else NOTHING,
            show.format(behind_text(behind).capitalize(), row.check) if behind else NOTHING,
            do if remedy else NOTHING,
            _about(about) + _folded("The query", query_of(row.check)),
        )


def _about(row: Row) -> Html:
    """Numbers, promise, cost, the command that repeats it, the request and its passing twin."""
    parts = []
    if row.compared:
        counted = f"; {with_unit(row.samples, 'observations')}" if row.samples else ""
        parts.append(Html('<p class="numbers">Observed: {}{}.</p>').format(row.compared, counted))
    meant = {"Promise": row.claim, "What a failure costs": row.cost}
    parts += [Html('<p class="claim">{}: {}</p>').format(n, Html.prose(text)) for n, text in meant.items() if text]
    parts.append(_runbook(str(row.details.get("runbook") or "")))
    parts.append(copied(row.reproduce, "the command"))
    if row.request:  # it may no longer exist: a drill removes its tenant
        parts += [Html("<p>The request, as a command:</p>"), copied(row.request, "the request")]
    parts.append(_witness(row.witness))
    return NOTHING.join(parts)


def _folded(title: str, text: str) -> Html:
    """A longer text folded under its title; nothing without a text."""
    body = Html("<details><summary>{}</summary>{}</details>").format(title, copied(text, title))
    return body if text else NOTHING


def _runbook(named: str) -> Html:
    """The text of the runbook, folded, if it is one of ours; else its address."""
    text = section_of(named)
    if text:
        return _folded(f"Runbook: {named}", text)
    if named.startswith("https://"):
        return Html('<p>Runbook: <a href="{}" rel="noopener noreferrer">{}</a></p>').format(named, named)
    return Html("<p>Runbook: <code>{}</code></p>").format(named) if named else NOTHING


def _witness(witness: JsonValue) -> Html:
    if witness is None or witness in ({}, []):
        return NOTHING
    named = witness if isinstance(witness, dict) and "request" in witness else {}
    if not named:
        return copied(_dumped(witness), "what was seen")
    rest = {name: value for name, value in named.items() if name not in TOLD}
    pairs = [(title, named.get(name)) for name, title in TOLD.items()] + [("Also seen", rest or None)]
    return NOTHING.join(
        Html("<p>{}:</p>{}").format(title, copied(_dumped(value), title)) for title, value in pairs if value is not None
    )


def _dumped(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)[:MOST_WITNESS]


def _grid(figures: Html) -> Html:
    return Html('<div class="figures">{}</div>').format(figures) if figures else NOTHING


def _table(rows: Sequence[tuple[str, str]]) -> Html:
    cells = NOTHING.join(Html("<tr><td>{}</td><td>{}</td></tr>").format(*row) for row in rows)
    return Html("<table>{}</table>").format(cells) if cells else NOTHING


def _checks(rows: Sequence[Row], causes: Causes) -> Html:
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: r.check):
        groups.setdefault(row.group, []).append(row)
    failed = any(row.effect and row.outcome == "fail" for row in rows)
    wrong = {"fail"} if failed else {"fail", "unknown"}  # unknown checks besides failures are told by cause
    body = NOTHING.join(_group(n, groups[n], causes, wrong) for n in sorted(groups))
    return section("All checks", tools(len(rows), OUTCOMES), body)


def _group(name: str, rows: Sequence[Row], causes: Causes, wrong: Collection[str]) -> Html:
    counts = Counter(row.outcome for row in rows)
    worst = next((o for o in OUTCOMES if counts[o]), "pass")
    said = ", ".join(f"{counts[o]} {('passed' if o == 'pass' else o)}" for o in OUTCOMES if counts[o])
    together = max if name == LOAD else sum
    seconds = together(row.duration_ms for row in rows) / 1000
    is_wrong = any(row.effect and row.outcome in wrong and not row.blocked_by for row in rows)
    opened = Html(" open") if is_wrong else NOTHING  # its cause explains a blocked or unjudged check
    body = NOTHING.join(_row(row, causes.of(row.check)) for row in rows)
    return Html('<details class="group"{}><summary>{} {}<span>{} · {:.1f} s</span></summary>{}</details>\n').format(
        opened, outcome(worst), name, said, seconds, body
    )


def _row(row: Row, cause: str) -> Html:
    message = Html("<p>{}</p>").format(Html.prose(row.message)) if row.message else NOTHING
    behind = Html(' data-cause="{}"').format(cause) if cause else NOTHING
    return Html(
        '<details class="row" id="{}" data-outcome="{}"{}><summary>{} {}<em>{}</em></summary>'
        "<div>{}{}</div></details>\n"
    ).format(row.anchor, row.outcome, behind, outcome(row.outcome), row.check, row.compared, message, _about(row))


def _footer(verdict: Verdict, run: Mapping[str, JsonValue]) -> Html:
    reason = Html("<p>Reason: {}</p>").format(verdict.reason)
    facts = (f"run {run.get('run_id', '')}", f"replaygate {run.get('gate', '')}", f"policy {verdict.policy_digest}")
    proof = Html("<p>This gate: {}.</p>").format(Html.prose(proof_of(run))) if proof_of(run) else NOTHING
    again = Html("Read it again from the evidence: <code>gate decide</code>.")
    return Html("<footer>{}{}{}. {}</footer>\n").format(reason, proof, " · ".join(facts), again)


FORMAT = Format("html", "report.html", html)


FILE = ROOT / "sql_checks" / "alerts" / "runbooks.md"


def section_of(named: str) -> str:
    """The text of a section such as `runbooks.md#outbox-lag`; empty if it is not ours."""
    file, _, anchor = named.partition("#")
    return _sections().get(anchor, "") if file == FILE.name else ""


@functools.cache
def _sections() -> dict[str, str]:
    """Anchor -> text without its heading."""
    try:
        whole = FILE.read_text(encoding="utf-8")
    except OSError:
        return {}
    parts = re.split(r"(?m)^## (.+)$", whole)
    return {title.strip(): text.strip() for title, text in zip(parts[1::2], parts[2::2], strict=True)}
