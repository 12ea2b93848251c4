"""report.html: one self-contained file without a network. The verdict first, then why, then every check. Pure.

Style and script stand beside this module; everything that comes from the target is escaped.
"""

from __future__ import annotations

import html as markup
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from gates.evidence import JsonValue
from gates.reports.rows import LOAD, OUTCOMES, Row, proof_of, shown
from gates.verdict import Verdict, grouped

HERE = Path(__file__).parent
MOST_WITNESS = 6000
MOST_FINDINGS = 50
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def html(verdict: Verdict, rows: Sequence[Row], run: Mapping[str, JsonValue]) -> str:
    """The whole document."""
    style = (HERE / "report.css").read_text(encoding="utf-8")
    script = (HERE / "report.js").read_text(encoding="utf-8")
    title = f"{verdict.decision.value}: {verdict.release or 'release not said'}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"{_header(verdict)}\n<main>\n{_by_hand(verdict)}{_deciding(verdict, rows)}{_ends(verdict)}{_recovery(verdict)}"
        f"{_checks(rows)}{_stages(run)}{_footer(verdict, run)}</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _header(verdict: Verdict) -> str:
    counts = verdict.counts
    numbers = {"pass": counts.passed, "fail": counts.failed, "unknown": counts.unknown}
    bar = "".join(f'<i class="{name}" style="flex:{n}"></i>' for name, n in numbers.items() if n)
    action = verdict.action
    steps = f"{action.kind}, {_percent(action.from_percent)} → {_percent(action.to_percent)} ({action.result})"
    facts = {
        "release": verdict.release or "not said",
        "target": verdict.target,
        "finished": verdict.finished_at.replace("T", " ")[:19] + " UTC" if verdict.finished_at else "no",
        "flag": steps if action.kind != "none" else action.result.replace("_", " "),
        "passed": str(counts.passed),
        "failed": str(counts.failed),
        "unknown": str(counts.unknown),
        "not applicable": str(counts.not_applicable),
    }
    listed = "".join(f"<span>{name} <b>{text(value)}</b></span>" for name, value in facts.items())
    alarm = f"<h1>{text(verdict.headline)}</h1>" if verdict.headline else ""
    margin = f'<p class="facts">{text(verdict.margin.sentence)}</p>' if verdict.margin else ""
    return (
        f'<header class="{verdict.decision.value}"><div>{alarm}<h1>{verdict.decision.value}</h1>'
        f'<p class="reason">{text(verdict.reason)}</p><div class="facts">{listed}</div>{margin}'
        f'<div class="bar">{bar}</div></div></header>'
    )


def _by_hand(verdict: Verdict) -> str:
    if not verdict.action.by_hand:
        return ""
    return f"<h2>Run this by hand</h2>\n<pre>{text(verdict.action.by_hand)}</pre>\n"


def _deciding(verdict: Verdict, rows: Sequence[Row]) -> str:
    """The findings that decided, with what they cost; what they block is only counted."""
    by_check = {row.check: row for row in rows}
    groups = [[by_check[f.check] for f in group if f.check in by_check] for group in grouped(verdict.deciding)]
    if not groups:
        return ""
    blocked = Counter(row.blocked_by for row in rows if row.blocked_by)
    cards = "".join(_finding(group, sum(blocked[r.check] for r in group)) for group in groups[:MOST_FINDINGS] if group)
    more = f"<p>… and {len(groups) - MOST_FINDINGS} more below.</p>" if len(groups) > MOST_FINDINGS else ""
    return f"<h2>Why</h2>\n{cards}{more}"


def _finding(group: Sequence[Row], blocks: int) -> str:
    row = group[0]
    blocked = f'<p class="claim">{blocks} more could not be carried out because of this.</p>' if blocks else ""
    names = "<br>".join(text(r.check) for r in group)
    about = _about(row) if len(group) == 1 else ""
    return (
        f'<div class="finding {row.outcome}"><h3>{names}</h3>'
        f"<p>{text(row.message or row.compared)}</p>{about}{blocked}</div>\n"
    )


def _about(row: Row) -> str:
    """Numbers, promise, cost, the command that repeats it, the witness."""
    parts = []
    if row.compared:
        unseen = f" ({row.samples} observed)" if row.samples else ""
        parts.append(f'<p class="numbers">observed {text(row.compared)}{unseen}</p>')
    parts += [f'<p class="claim">{text(row.claim)}</p>'] * bool(row.claim)
    parts += [f'<p class="cost">{text(row.cost)}</p>'] * bool(row.cost)
    parts += [f"<pre>{text(row.reproduce)}</pre>"] * bool(row.reproduce)
    if row.witness is not None:
        parts.append(f"<pre>{text(json.dumps(row.witness, ensure_ascii=False, indent=1)[:MOST_WITNESS])}</pre>")
    return "".join(parts)


def _ends(verdict: Verdict) -> str:
    if not verdict.ends_when:
        return ""
    items = "".join(f"<li>{text(one)}</li>" for one in verdict.ends_when[:MOST_FINDINGS])
    return f"<h2>The hold ends when</h2>\n<ul>{items}</ul>\n"


def _recovery(verdict: Verdict) -> str:
    if not verdict.action.recovery:
        return ""
    rows = "".join(
        f"<tr><td>{text(name.replace('_', ' '))}</td><td>{text(shown(value))}</td></tr>"
        for name, value in verdict.action.recovery.items()
    )
    return f"<h2>After the rollback</h2>\n<table>{rows}</table>\n"


def _checks(rows: Sequence[Row]) -> str:
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: r.check):
        groups.setdefault(row.group, []).append(row)
    boxes = "".join(
        f'<label><input type="checkbox" value="{name}" checked> <span>{name}</span></label>' for name in OUTCOMES
    )
    tools = f'<div class="tools"><input type="search" placeholder="Filter {len(rows)} checks">{boxes}</div>'
    return f"<h2>All checks</h2>\n{tools}\n{''.join(_group(n, groups[n]) for n in sorted(groups))}"


def _group(name: str, rows: Sequence[Row]) -> str:
    counts = Counter(row.outcome for row in rows)
    worst = next((o for o in OUTCOMES if counts[o]), "pass")
    said = ", ".join(f"{counts[o]} {'passed' if o == 'pass' else o}" for o in OUTCOMES if counts[o])
    together = max if name == LOAD else sum
    seconds = together(row.duration_ms for row in rows) / 1000
    opened = " open" if worst in {"fail", "unknown"} else ""
    body = "".join(_row(row) for row in rows)
    return (
        f'<details class="group"{opened}><summary><i class="dot {_class(worst)}"></i>{text(name)}'
        f"<span>{said} · {seconds:.1f} s</span></summary>{body}</details>\n"
    )


def _row(row: Row) -> str:
    effect = f"<p>{text(row.message)}</p>" if row.message else ""
    return (
        f'<details class="row" data-outcome="{row.outcome}"><summary><i class="dot {_class(row.outcome)}"></i>'
        f"{text(row.check)}<em>{text(row.compared)}</em></summary><div>{effect}{_about(row)}</div></details>\n"
    )


def _stages(run: Mapping[str, JsonValue]) -> str:
    stages = run.get("stages")
    if not isinstance(stages, list) or not stages:
        return ""
    rows = "".join(
        f"<tr><td>{text(s.get('stage'))}</td><td>{text(s.get('seconds'))} s</td><td>{text(s.get('error'))}</td></tr>"
        for s in stages
        if isinstance(s, dict)
    )
    return f"<h2>Stages</h2>\n<table>{rows}</table>\n"


def _footer(verdict: Verdict, run: Mapping[str, JsonValue]) -> str:
    facts = (f"run {run.get('run_id', '')}", f"replaygate {run.get('gate', '')}", f"policy {verdict.policy_digest}")
    proof = f"<p>This gate: {text(proof_of(run))}.</p>" if proof_of(run) else ""
    again = "Read it again from the evidence: <code>gate decide</code>."
    return f"<footer>{proof}{text(' · '.join(facts))}. {again}</footer>\n"


def _class(outcome: str) -> str:
    return outcome.replace(" ", "-")


def _percent(value: int | None) -> str:
    return "?" if value is None else f"{value} %"


def text(value: object) -> str:
    """Text of whatever origin, safe in an element or an attribute."""
    return markup.escape("" if value is None else str(value), quote=True)
