"""The verdict as Markdown, for pull requests and step summaries. Pure."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from gates.contract.remedies import remedy_of
from gates.reports.formats.format import Format, ReportSource
from gates.reports.formats.rows import Row, proof_of
from gates.reports.sentences import beside_causes, brief, recovery_lines, short_list
from gates.text.inert import Markdown
from gates.text.quantity import with_unit
from gates.verdict import BESIDE, UNDECIDED, Verdict, behind_text, grouped, named

MOST_ROWS = 20
MOST_WITNESS = 1500
MOST_SAID = 400
MOST_ENDS = 8
SIGNS = {"promote": Markdown("🟢"), "hold": Markdown("🟡"), "rollback": Markdown("🔴")}
EMPTY = Markdown("")


def markdown(source: ReportSource) -> Markdown:
    """What happened, was done and is to do, the causes, the checks by group, and the gate's last proof."""
    verdict, rows, counts = source.verdict, source.rows, source.verdict.counts
    told = brief(Markdown, verdict, source.promises, source.plan)
    lines = [
        Markdown("## {} {}").format(SIGNS[verdict.shown_as], verdict.title),
        EMPTY,
        *_alarm(verdict),
        *([told.lead, EMPTY] if told.lead else []),
        told.happened,
        EMPTY,
        Markdown("**Done:** {}").format(told.done),
        EMPTY,
        Markdown("**Now:** {}").format(told.now),
        EMPTY,
        Markdown("Release {} on {}: {} passed, {} failed, {} unknown, {} not applicable.").format(
            verdict.release or "not said",
            verdict.target,
            counts.passed,
            counts.failed,
            counts.unknown,
            counts.not_applicable,
        ),
    ]
    for remark in beside_causes(verdict, source.plan):
        lines += [EMPTY, Markdown.escape(remark)]
    lines += _findings(verdict, {row.check: row.cost for row in rows})
    lines += _action(verdict)
    for outcome in BESIDE:
        lines += _beside(verdict, outcome)
    if verdict.ends_when:
        ends = (Markdown("- {}").format(e) for e in short_list(verdict.ends_when, MOST_ENDS))
        lines += [EMPTY, Markdown("The hold ends when:"), EMPTY, *ends]
    spared = [f"{s.check} ({s.by})" for s in verdict.not_required if s.by != UNDECIDED]  # those are unknown, above
    if spared:
        named = (Markdown("- {}").format(one) for one in short_list(spared, MOST_ROWS))
        lines += [EMPTY, Markdown("Not required:"), EMPTY, *named]
    proof = proof_of(source.run)
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
    """What was proved after a rollback."""
    recovery = [Markdown("- {}: {}").format(k, v) for k, v in recovery_lines(verdict.action.recovery)]
    return [*[EMPTY] * bool(recovery), *recovery]


def _beside(verdict: Verdict, outcome: str) -> list[Markdown]:
    """What else failed or is unknown, by cause."""
    groups = verdict.beside(outcome)
    if not groups:
        return []
    titles, rows = (BESIDE[outcome], "checks", "why", "what to do"), list[tuple[str, int, str, Markdown]]()
    for group in groups[:MOST_ROWS]:
        first, count = group[0], len(group) + verdict.behind(group)
        remedy = Markdown.prose(remedy_of(first.check, outcome, verdict.contract, seen=first.message))
        rows.append((first.check, count, first.said[:MOST_SAID], remedy))
    columns = len(titles) if any(row[-1] for row in rows) else len(titles) - 1
    lines = [EMPTY, *head(*titles[:columns]), *(Markdown.row(row[:columns]) for row in rows)]
    left = sum(map(len, groups[MOST_ROWS:]))
    return [*lines, *[EMPTY, Markdown("… and {} more.").format(left)] * bool(left)]


def _findings(verdict: Verdict, costs: Mapping[str, str]) -> list[Markdown]:
    deciding = verdict.deciding
    if not deciding:
        return []
    lines = [EMPTY, *head("check", "outcome", "observed", "allowed", "what was seen", "what it costs", "what to do")]
    groups = grouped(deciding)
    for one, *others in groups[:MOST_ROWS]:
        numbers = ["" if v is None else with_unit(v, one.unit) for v in (one.observed, one.limit)]
        cost = costs.get(one.check, "") if one.outcome == "fail" else ""
        behind = verdict.behind([one, *others])
        seen = "; ".join([one.said[:MOST_SAID], *[behind_text(behind)] * bool(behind)])
        lines.append(
            Markdown.row(
                (
                    named([one, *others]),
                    one.outcome,
                    *numbers,
                    seen,
                    cost,
                    Markdown.prose(remedy_of(one.check, one.outcome, verdict.contract, seen=one.message)),
                )
            )
        )
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
