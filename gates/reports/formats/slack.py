"""The verdict as a Slack message (Block Kit JSON). Pure: webhook.py sends it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from gates.contract.remedies import remedy_of
from gates.evidence import JsonValue
from gates.reports.formats.format import Format
from gates.reports.formats.rows import Row
from gates.text.inert import Slack
from gates.verdict import Finding, Verdict, behind_text, grouped

SIGNS = {
    "promote": Slack(":large_green_circle:"),
    "hold": Slack(":large_yellow_circle:"),
    "rollback": Slack(":red_circle:"),
}
MOST_FINDINGS = 5
MOST_TEXT = 2900
"""Slack refuses a text block over 3000 characters."""
MOST_PART = 500
"""Characters of one foreign text, so that it does not push out what follows."""


def slack(verdict: Verdict, rows: Sequence[Row], _run: Mapping[str, JsonValue]) -> str:
    """The body of a POST to an incoming webhook."""
    counts = verdict.counts
    alarm = Slack(":rotating_light: *{}*\n").format(verdict.headline) if verdict.headline else ""
    head = Slack("{} *{}* {} on {}\n{}").format(
        SIGNS[verdict.shown_as],
        verdict.title,
        verdict.release[:MOST_PART] or "release not said",
        verdict.target[:MOST_PART],
        verdict.reason[:MOST_PART],
    )
    blocks = [section(Slack("{}{}").format(alarm, head))]
    by_hand = verdict.action.by_hand
    blocks += [section(Slack("Run this by hand:\n{}").format(Slack.block(by_hand)))] * bool(by_hand)
    groups = grouped(verdict.deciding)
    deciding = [_cause(group, verdict.behind(group)) for group in groups[:MOST_FINDINGS]]
    more = sum(map(len, groups[MOST_FINDINGS:]))
    deciding += [Slack("… and {} more").format(more)] * (more > 0)
    blocks += [section(Slack("\n").join(deciding))] * bool(deciding)
    required = len(rows) - counts.not_applicable
    foot = Slack("{} of {} passed, {} failed, {} unknown. {}").format(
        counts.passed, required, counts.failed, counts.unknown, ". ".join(verdict.remarks)
    )
    said = filter(None, (verdict.headline, verdict.title, verdict.reason))
    return message(Slack(": ").join(said), [*blocks, context(foot.strip())])


def _cause(group: Sequence[Finding], behind: int) -> Slack:
    """One cause: what was seen, how much stands behind it, what to do."""
    first = group[0]
    names = first.check[:MOST_PART] + (f" and {len(group) - 1} more" if len(group) > 1 else "")
    told = [first.message[:200], *[behind_text(behind)] * bool(behind), remedy_of(first.check)]
    return Slack("• {} {}: {}").format(names, first.outcome, ". ".join(filter(None, told)))


def message(text: Slack, blocks: Sequence[JsonValue]) -> str:
    """The body as JSON; `text` is what a notification shows. Addresses in it are neither linked nor looked up."""
    whole = {"text": text.cut(MOST_TEXT), "blocks": list(blocks), "unfurl_links": False, "unfurl_media": False}
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


def section(text: Slack) -> dict[str, JsonValue]:
    return {"type": "section", "text": _mrkdwn(text)}


def context(text: Slack) -> dict[str, JsonValue]:
    return {"type": "context", "elements": [_mrkdwn(text)]}


def _mrkdwn(text: Slack) -> JsonValue:
    return {"type": "mrkdwn", "text": text.cut(MOST_TEXT), "verbatim": True}


FORMAT = Format("slack", "", slack)
