"""The verdict as a Slack message (Block Kit JSON). Pure: sending it is somebody else's."""

from __future__ import annotations

import json
from collections.abc import Sequence

from gates.evidence import JsonValue
from gates.reports.rows import Row
from gates.verdict import Verdict

SIGNS = {"promote": ":large_green_circle:", "hold": ":large_yellow_circle:", "rollback": ":red_circle:"}
MOST_FINDINGS = 5
MOST_TEXT = 2900
"""Slack refuses a text block over 3000 characters."""


def slack(verdict: Verdict, rows: Sequence[Row]) -> str:
    """The body of a POST to an incoming webhook."""
    counts = verdict.counts
    head = f"{SIGNS[verdict.decision]} *{verdict.decision.value}* {escaped(verdict.release) or 'release not said'}"
    alarm = f":rotating_light: *{verdict.headline}*\n" if verdict.headline else ""
    blocks = [_section(f"{alarm}{head} on {verdict.target}\n{escaped(verdict.reason)}")]
    blocks += [_section(f"Run this by hand:\n```{escaped(verdict.action.by_hand)}```")] * bool(verdict.action.by_hand)
    deciding = [
        f"• `{escaped(f.check)}` {f.outcome}: {escaped(f.message)[:200]}" for f in verdict.deciding[:MOST_FINDINGS]
    ]
    more = len(verdict.deciding) - MOST_FINDINGS
    deciding += [f"… and {more} more"] * (more > 0)
    blocks += [_section("\n".join(deciding))] * bool(deciding)
    required = len(rows) - counts.not_applicable
    said = f"{counts.passed} of {required} passed, {counts.failed} failed, {counts.unknown} unknown"
    foot = f"{said}. {verdict.margin.sentence}" if verdict.margin else said
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": escaped(foot)[:MOST_TEXT]}]})
    text = ": ".join(filter(None, (verdict.headline, verdict.decision.value, verdict.reason)))
    return json.dumps({"text": escaped(text)[:MOST_TEXT], "blocks": blocks}, ensure_ascii=False, indent=1) + "\n"


def _section(text: str) -> dict[str, JsonValue]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text[:MOST_TEXT]}}


def escaped(text: str) -> str:
    """Text that cannot mention anybody or make a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("`", "'")
