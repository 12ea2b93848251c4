"""The verdict as a Slack message (Block Kit JSON). Pure: webhook.py sends it."""

import json
from collections.abc import Sequence

from gates.contract.remedies import remedy_of
from gates.evidence import JsonValue
from gates.reports.formats.format import Format, ReportSource
from gates.reports.sentences import brief
from gates.text import characters
from gates.text.inert import Slack
from gates.text.quantity import with_unit
from gates.verdict import Finding, Verdict, behind_text, grouped, named

SIGNS = {
    "promote": Slack(":large_green_circle:"),
    "hold": Slack(":large_yellow_circle:"),
    "rollback": Slack(":red_circle:"),
}
MOST_FINDINGS = 5
MOST_TEXT = 2900
"""Slack refuses a text block over 3000 characters."""
MOST_PART = 500
"""The most characters of one foreign text, so that it does not push out what follows."""


def slack(source: ReportSource) -> str:
    """The body of a POST to an incoming webhook."""
    verdict, counts = source.verdict, source.verdict.counts
    told = brief(Slack, verdict, source.promises, source.plan)
    alarm = Slack(":rotating_light: *{}*\n").format(verdict.headline) if verdict.headline else ""
    head = Slack("{} *{}*\n{}\n*Done:* {}\n*Now:* {}").format(
        SIGNS[verdict.shown_as], verdict.title, *(t.cut(MOST_PART) for t in (told.happened, told.done, told.now))
    )
    blocks = [section(Slack("{}{}").format(alarm, head))]
    by_hand = verdict.action.by_hand
    blocks += [section(Slack("Run this by hand:\n{}").format(Slack.block(by_hand)))] * bool(by_hand)
    deciding: list[Slack] = []
    for groups, before in ((grouped(verdict.deciding), Slack("")), (verdict.beside("fail"), Slack("Also failed:"))):
        deciding += [before] * bool(before and groups)
        deciding += [_cause(group, verdict, told.now) for group in groups[:MOST_FINDINGS]]
        more = sum(map(len, groups[MOST_FINDINGS:]))
        deciding += [Slack("… and {} more").format(more)] * (more > 0)
    unknown = verdict.beside("unknown")
    unseen = sum(len(group) + verdict.behind(group) for group in unknown)
    also = Slack("Also unknown: {} of {}").format(with_unit(unseen, "checks"), with_unit(len(unknown), "causes"))
    deciding += [also] * (unseen > 0)
    blocks += [section(Slack("\n").join(deciding))] * bool(deciding)
    required = len(source.rows) - counts.not_applicable
    foot = Slack("{} of {} passed, {} failed, {} unknown. {}").format(
        counts.passed, required, counts.failed, counts.unknown, ". ".join(verdict.remarks)
    )
    said = filter(None, (Slack.escape(verdict.headline), Slack.escape(verdict.title), told.lead or told.happened))
    return message(Slack(": ").join(said), [*blocks, context(foot.strip())])


def _cause(group: Sequence[Finding], verdict: Verdict, now: Slack) -> Slack:
    """One cause: what was seen, how much stands behind it, what to do; now: what has been said of that before."""
    first, behind = group[0], verdict.behind(group)
    remedy = Slack.prose(remedy_of(first.check, first.outcome, verdict.contract, seen=first.message))
    do = "" if remedy in now else remedy
    told = filter(None, (first.said[:200], behind_text(behind).capitalize() if behind else "", do))
    return Slack("• {} {}: {}").format(named(group)[:MOST_PART], first.outcome, Slack(". ").join(told))


def message(text: Slack, blocks: Sequence[JsonValue]) -> str:
    """The body as JSON; `text` is what a notification shows. Addresses are neither linked nor unfurled."""
    whole = {"text": text.cut(MOST_TEXT), "blocks": list(blocks), "unfurl_links": False, "unfurl_media": False}
    return characters.log(json.dumps(whole, ensure_ascii=False, indent=1)) + "\n"


def section(text: Slack) -> dict[str, JsonValue]:
    return {"type": "section", "text": _mrkdwn(text)}


def context(text: Slack) -> dict[str, JsonValue]:
    return {"type": "context", "elements": [_mrkdwn(text)]}


def _mrkdwn(text: Slack) -> JsonValue:
    return {"type": "mrkdwn", "text": text.cut(MOST_TEXT), "verbatim": True}


FORMAT = Format("slack", "", slack)
