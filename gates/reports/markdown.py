"""The verdict as Markdown, for pull requests and step summaries. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from gates.evidence import JsonValue
from gates.reports.rows import Row, proof_of
from gates.verdict import Verdict, grouped

MOST_ROWS = 20
MOST_WITNESS = 1500
SIGNS = {"promote": "🟢", "hold": "🟡", "rollback": "🔴"}


def markdown(verdict: Verdict, rows: Sequence[Row], run: Mapping[str, JsonValue]) -> str:
    """Decision, reason, deciding findings, margin, action, the checks by group, and the last proof of the gate."""
    counts = verdict.counts
    said = f"{counts.passed} passed, {counts.failed} failed, {counts.unknown} unknown"
    where = f"Release `{cell(verdict.release) or 'not said'}` on `{verdict.target}`"
    lines = [
        f"## {SIGNS[verdict.decision]} {verdict.decision.value}",
        "",
        *_alarm(verdict),
        cell(verdict.reason),
        "",
        f"{where}: {said}, {counts.not_applicable} not applicable.",
    ]
    lines += _action(verdict)
    if verdict.margin is not None:
        lines += ["", verdict.margin.sentence]
    lines += _findings(verdict)
    if verdict.ends_when:
        lines += ["", "The hold ends when:", "", *(f"- {cell(e)}" for e in verdict.ends_when[:MOST_ROWS])]
    proof = proof_of(run)
    return "\n".join([*lines, *_groups(rows), *(["", f"This gate: {cell(proof)}."] if proof else [])]) + "\n"


def _alarm(verdict: Verdict) -> list[str]:
    """The headline, and what to run by hand, before everything else."""
    if not verdict.headline:
        return []
    sql = verdict.action.by_hand.replace("```", "` ` `")
    by_hand = ["Run this by hand:", "", "```sql", sql, "```", ""] if sql else []
    return [f"**{verdict.headline}**", "", *by_hand]


def _action(verdict: Verdict) -> list[str]:
    action = verdict.action
    if action.kind == "none":
        return []
    recovery = [f"{k} {v}" for k, v in action.recovery.items()]
    return ["", f"Action: {action.kind}, {action.from_percent} % → {action.to_percent} %, {action.result}.", *recovery]


def _findings(verdict: Verdict) -> list[str]:
    deciding = verdict.deciding
    if not deciding:
        return []
    lines = ["", "| check | outcome | observed | allowed | what was seen |", "|---|---|---|---|---|"]
    groups = grouped(deciding)
    for one, *others in groups[:MOST_ROWS]:
        names = f"`{cell(one.check)}`" + (f" and {len(others)} more" if others else "")
        numbers = [cell("" if v is None else f"{v} {one.unit}".strip()) for v in (one.observed, one.limit)]
        lines.append(f"| {names} | {one.outcome} | {numbers[0]} | {numbers[1]} | {cell(one.message)[:400]} |")
    if len(groups) > MOST_ROWS:
        lines.append(f"\n… and {sum(map(len, groups[MOST_ROWS:]))} more.")
    first = next((f for f in deciding if f.witness or f.reproduce), None)
    if first is not None:
        witness = json.dumps(first.witness, ensure_ascii=False, indent=1)[:MOST_WITNESS] if first.witness else ""
        body = "\n\n".join(part for part in (first.reproduce, witness) if part).replace("```", "` ` `")
        lines += ["", f"<details><summary>{cell(first.check)}</summary>", "", "```", body, "```", "", "</details>"]
    return lines


def _groups(rows: Sequence[Row]) -> list[str]:
    groups: dict[str, Counter[str]] = {}
    for row in rows:
        groups.setdefault(row.group, Counter())[row.outcome] += 1
    lines = ["", "| checks | passed | failed | unknown | not applicable |", "|---|---|---|---|---|"]
    for name in sorted(groups):
        c = groups[name]
        lines.append(f"| {cell(name)} | {c['pass']} | {c['fail']} | {c['unknown']} | {c['not applicable']} |")
    return lines


def cell(text: str) -> str:
    """Text that cannot break out of a table cell or into markup."""
    flat = " ".join(str(text).split())
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "'")
