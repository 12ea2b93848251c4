"""report.html: one self-contained file without a network. The verdict first, then why, then every check. Pure.

Style and script stand beside this module.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from gates.contract.remedies import remedy_of
from gates.evidence import JsonValue, shown_time
from gates.reports.formats.format import Format
from gates.reports.formats.rows import LOAD, OUTCOMES, Row, proof_of, shown
from gates.text.inert import Html
from gates.verdict import Verdict, behind_text, grouped

STYLE, SCRIPT = (Path(__file__).with_name(f"report.{kind}") for kind in ("css", "js"))
MOST_WITNESS = 6000
MOST_FINDINGS = 50


def html(verdict: Verdict, rows: Sequence[Row], run: Mapping[str, JsonValue]) -> Html:
    """The whole document."""
    title = f"{verdict.title}: {verdict.release or 'release not said'}"
    parts = (_by_hand(verdict), _deciding(verdict, rows), _ends(verdict), _recovery(verdict))
    body = Html("").join([*parts, _checks(rows), _stages(run), _footer(verdict, run)])
    return document(title, _header(verdict), body, script=SCRIPT)


def document(title: str, header: Html, body: Html, *styles: Path, script: Path | None = None) -> Html:
    """A page that runs only its own script and style: its policy (CSP) holds their hashes, or forbids scripts.

    styles: beside the one that every page has.
    """
    style = Html.packaged(STYLE, *styles)
    code = Html.packaged(script) if script else None
    element = Html("") if code is None else Html("<script>{}</script>\n").format(code)
    allowed = Html("'none'") if code is None else code.csp_hash()
    return Html(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src {}; script-src {}; '
        "base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{}</title>\n'
        "<style>{}</style>\n</head>\n<body>\n{}\n<main>\n{}</main>\n{}</body>\n</html>\n"
    ).format(style.csp_hash(), allowed, title, style, header, body, element)


def proportions(numbers: Mapping[str, int]) -> Html:
    """A bar with a part for each number, as wide as the number is great."""
    rects, x = [], 0
    for name, number in numbers.items():
        rects.append(Html('<rect class="{}" x="{}" width="{}" height="1"/>').format(name, x, number))
        x += number
    picture = Html('<svg class="bar" viewBox="0 0 {} 1" preserveAspectRatio="none" aria-hidden="true">{}</svg>')
    return picture.format(x or 1, Html("").join(rects))


def _header(verdict: Verdict) -> Html:
    counts = verdict.counts
    numbers = {"pass": counts.passed, "fail": counts.failed, "unknown": counts.unknown}
    bar = proportions(numbers)
    action = verdict.action
    steps = f"{action.kind}, {_percent(action.from_percent)} → {_percent(action.to_percent)} ({action.result})"
    facts = {
        "release": verdict.release or "not said",
        "target": verdict.target,
        "finished": shown_time(verdict.finished_at) or "no",
        "flag": steps if action.kind != "none" else action.result.replace("_", " "),
        "passed": str(counts.passed),
        "failed": str(counts.failed),
        "unknown": str(counts.unknown),
        "not applicable": str(counts.not_applicable),
        **({"not required": str(len(verdict.not_required))} if verdict.not_required else {}),
    }
    listed = Html("").join(Html("<span>{} <b>{}</b></span>").format(name, value) for name, value in facts.items())
    alarm = Html("<h1>{}</h1>").format(verdict.headline) if verdict.headline else Html("")
    remarks = Html("").join(Html('<p class="facts">{}</p>').format(remark) for remark in verdict.remarks)
    return Html(
        '<header class="{}"><div>{}<h1>{}</h1><p class="reason">{}</p><div class="facts">{}</div>{}{}</div></header>'
    ).format(verdict.shown_as.value, alarm, verdict.title, verdict.reason, listed, remarks, bar)


def _by_hand(verdict: Verdict) -> Html:
    if not verdict.action.by_hand:
        return Html("")
    return Html("<h2>Run this by hand</h2>\n<pre>{}</pre>\n").format(verdict.action.by_hand)


def _deciding(verdict: Verdict, rows: Sequence[Row]) -> Html:
    """The findings that decided, with what they cost; what they block is only counted."""
    by_check = {row.check: row for row in rows}
    groups = grouped(verdict.deciding)
    if not groups:
        return Html("")
    cards = Html("").join(
        _finding([by_check[f.check] for f in group], verdict.behind(group))
        for group in groups[:MOST_FINDINGS]
        if all(f.check in by_check for f in group)
    )
    more = (
        Html("<p>… and {} more below.</p>").format(len(groups) - MOST_FINDINGS)
        if len(groups) > MOST_FINDINGS
        else Html("")
    )
    return Html("<h2>Why</h2>\n{}{}").format(cards, more)


def _finding(group: Sequence[Row], blocks: int) -> Html:
    row = group[0]
    blocked = Html('<p class="claim">{}.</p>').format(behind_text(blocks).capitalize()) if blocks else Html("")
    remedy = remedy_of(row.check)
    do = Html('<p class="do">What to do: {} More: <code>gate explain {}</code></p>').format(remedy, row.check)
    names = Html("<br>").join(r.check for r in group)
    about = _about(row) if len(group) == 1 else Html("")
    return Html('<div class="finding {}"><h3>{}</h3><p>{}</p>{}{}{}</div>\n').format(
        row.outcome, names, row.message or row.compared, about, blocked, do if remedy else Html("")
    )


def _about(row: Row) -> Html:
    """Numbers, promise, cost, the command that repeats it, the witness."""
    parts = []
    if row.compared:
        unseen = f" ({row.samples} observed)" if row.samples else Html("")
        parts.append(Html('<p class="numbers">observed {}{}</p>').format(row.compared, unseen))
    parts += [Html('<p class="claim">{}</p>').format(row.claim)] * bool(row.claim)
    parts += [Html('<p class="cost">{}</p>').format(row.cost)] * bool(row.cost)
    parts += [Html("<pre>{}</pre>").format(row.reproduce)] * bool(row.reproduce)
    if row.witness is not None:
        parts.append(Html("<pre>{}</pre>").format(json.dumps(row.witness, ensure_ascii=False, indent=1)[:MOST_WITNESS]))
    return Html("").join(parts)


def _ends(verdict: Verdict) -> Html:
    if not verdict.ends_when:
        return Html("")
    items = Html("").join(Html("<li>{}</li>").format(one) for one in verdict.ends_when[:MOST_FINDINGS])
    return Html("<h2>The hold ends when</h2>\n<ul>{}</ul>\n").format(items)


def _recovery(verdict: Verdict) -> Html:
    if not verdict.action.recovery:
        return Html("")
    rows = Html("").join(
        (
            Html("<tr><td>{}</td><td>{}</td></tr>").format(name.replace("_", " "), shown(value))
            for name, value in verdict.action.recovery.items()
        )
    )
    return Html("<h2>After the rollback</h2>\n<table>{}</table>\n").format(rows)


def _checks(rows: Sequence[Row]) -> Html:
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: r.check):
        groups.setdefault(row.group, []).append(row)
    cards = Html("").join(
        Html('<label><input type="checkbox" value="{}" checked> <span>{}</span></label>').format(name, name)
        for name in OUTCOMES
    )
    tools = Html('<div class="tools"><input type="search" placeholder="Filter {} checks">{}</div>').format(
        len(rows), cards
    )
    return Html("<h2>All checks</h2>\n{}\n{}").format(
        tools, Html("").join(_group(n, groups[n]) for n in sorted(groups))
    )


def _group(name: str, rows: Sequence[Row]) -> Html:
    counts = Counter(row.outcome for row in rows)
    worst = next((o for o in OUTCOMES if counts[o]), "pass")
    said = ", ".join(f"{counts[o]} {('passed' if o == 'pass' else o)}" for o in OUTCOMES if counts[o])
    together = max if name == LOAD else sum
    seconds = together(row.duration_ms for row in rows) / 1000
    opened = " open" if worst in {"fail", "unknown"} else Html("")
    body = Html("").join(_row(row) for row in rows)
    return Html(
        '<details class="group"{}><summary><i class="dot {}"></i>{}<span>{} · {:.1f} s</span></summary>{}</details>\n'
    ).format(opened, _class(worst), name, said, seconds, body)


def _row(row: Row) -> Html:
    effect = Html("<p>{}</p>").format(row.message) if row.message else Html("")
    return Html(
        '<details class="row" data-outcome="{}"><summary><i class="dot {}"></i>{}<em>{}</em></summary>'
        "<div>{}{}</div></details>\n"
    ).format(row.outcome, _class(row.outcome), row.check, row.compared, effect, _about(row))


def _stages(run: Mapping[str, JsonValue]) -> Html:
    stages = run.get("stages")
    if not isinstance(stages, list) or not stages:
        return Html("")
    rows = Html("").join(
        Html("<tr><td>{}</td><td>{} s</td><td>{}</td></tr>").format(
            s.get("stage") or "", s.get("seconds"), s.get("error") or ""
        )
        for s in stages
        if isinstance(s, dict)
    )
    return Html("<h2>Stages</h2>\n<table>{}</table>\n").format(rows)


def _footer(verdict: Verdict, run: Mapping[str, JsonValue]) -> Html:
    facts = (f"run {run.get('run_id', '')}", f"replaygate {run.get('gate', '')}", f"policy {verdict.policy_digest}")
    proof = Html("<p>This gate: {}.</p>").format(proof_of(run)) if proof_of(run) else Html("")
    again = Html("Read it again from the evidence: <code>gate decide</code>.")
    return Html("<footer>{}{}. {}</footer>\n").format(proof, " · ".join(facts), again)


def _class(outcome: str) -> str:
    return outcome.replace(" ", "-")


def _percent(value: int | None) -> str:
    return "?" if value is None else f"{value} %"


FORMAT = Format("html", "report.html", html)
