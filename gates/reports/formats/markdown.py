"""The verdict as Markdown, for pull requests and step summaries. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from gates.contract.remedies import remedy_of
from gates.evidence import JsonValue
from gates.reports.formats.format import Format
from gates.reports.formats.rows import Row, proof_of
from gates.text.inert import Markdown
from gates.verdict import Verdict, behind_text, grouped

MOST_ROWS = 20
MOST_WITNESS = 1500
SIGNS = {"promote": Markdown("🟢"), "hold": Markdown("🟡"), "rollback": Markdown("🔴")}
EMPTY = Markdown("")


def markdown(verdict: Verdict, rows: Sequence[Row], run: Mapping[str, JsonValue]) -> Markdown:
    """Decision, reason, deciding findings, margin, action, the checks by group, and the last proof of the gate."""
    counts = verdict.counts
    lines = [
        Markdown("## {} {}").format(SIGNS[verdict.shown_as], verdict.title),
        EMPTY,
        *_alarm(verdict),
        Markdown.escape(verdict.reason),
        EMPTY,
        Markdown("Release {} on {}: {} passed, {} failed, {} unknown, {} not applicable.").format(
            verdict.release or "not said",
            verdict.target,
            counts.passed,
            counts.failed,
            counts.unknown,
            counts.not_applicable,
        ),
        *_action(verdict),
    ]
    for remark in verdict.remarks:
        lines += [EMPTY, Markdown.escape(remark)]
    lines += _findings(verdict, {row.check: row.cost for row in rows})
    if verdict.ends_when:
        ends = (Markdown("- {}").format(e) for e in verdict.ends_when[:MOST_ROWS])
        lines += [EMPTY, Markdown("The hold ends when:"), EMPTY, *ends]
    if verdict.not_required:
        named = [Markdown("- {} ({})").format(s.check, s.by) for s in verdict.not_required[:MOST_ROWS]]
        lines += [EMPTY, Markdown("Not required, among others:"), EMPTY, *named]
    proof = proof_of(run)
    lines += [*_groups(rows), *([EMPTY, Markdown("This gate: {}.").format(proof)] if proof else [])]
    return Markdown.of_lines(lines)


def _alarm(verdict: Verdict) -> list[Markdown]:
    """The headline, and what to run by hand, before everything else."""
    if not verdict.headline:
        return []
    sql = verdict.action.by_hand
    by_hand = [Markdown("Run this by hand:"), EMPTY, Markdown.block(sql, "sql"), EMPTY] if sql else []
    return [Markdown("**{}**").format(verdict.headline), EMPTY, *by_hand]


def _action(verdict: Verdict) -> list[Markdown]:
    action = verdict.action
    if action.kind == "none":
        return []
    done = Markdown("Action: {}, {} % → {} %, {}.")
    recovery = [Markdown("- {} {}").format(k, v) for k, v in action.recovery.items()]
    return [
        EMPTY,
        done.format(action.kind, action.from_percent, action.to_percent, action.result),
        *[EMPTY] * bool(recovery),
        *recovery,
    ]


def _findings(verdict: Verdict, costs: Mapping[str, str]) -> list[Markdown]:
    deciding = verdict.deciding
    if not deciding:
        return []
    lines = [EMPTY, *head("check", "outcome", "observed", "allowed", "what was seen", "what it costs", "what to do")]
    groups = grouped(deciding)
    for one, *others in groups[:MOST_ROWS]:
        names = Markdown("{} and {} more").format(one.check, len(others)) if others else one.check
        numbers = ["" if v is None else f"{v} {one.unit}".strip() for v in (one.observed, one.limit)]
        cost = costs.get(one.check, "") if one.outcome == "fail" else ""
        behind = verdict.behind([one, *others])
        seen = "; ".join([one.message[:400], *[behind_text(behind)] * bool(behind)])
        lines.append(Markdown.row((names, one.outcome, *numbers, seen, cost, remedy_of(one.check))))
    if len(groups) > MOST_ROWS:
        lines += [EMPTY, Markdown("… and {} more.").format(sum(map(len, groups[MOST_ROWS:])))]
    first = next((f for f in deciding if f.witness or f.reproduce), None)
    if first is not None:
        witness = json.dumps(first.witness, ensure_ascii=False, indent=1)[:MOST_WITNESS] if first.witness else ""
        body = Markdown.block("\n\n".join(part for part in (first.reproduce, witness) if part))
        summary = Markdown("<details><summary>{}</summary>").format(first.check)
        lines += [EMPTY, summary, EMPTY, body, EMPTY, Markdown("</details>")]
    return lines


def _groups(rows: Sequence[Row]) -> list[Markdown]:
    groups: dict[str, Counter[str]] = {}
    for row in rows:
        groups.setdefault(row.group, Counter())[row.outcome] += 1
    outcomes = ("pass", "fail", "unknown", "not applicable")
    titles = head("checks", "passed", "failed", "unknown", "not applicable")
    return [EMPTY, *titles, *(Markdown.row((name, *(groups[name][o] for o in outcomes))) for name in sorted(groups))]


def head(*titles: str) -> list[Markdown]:
    return [Markdown.row(titles), Markdown("|{}").format(Markdown("---|") * len(titles))]


FORMAT = Format("markdown", "summary.md", markdown)
