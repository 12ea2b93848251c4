"""One round of replays and events in many combinations, so that the journal has some whatever else was drilled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from drills.workbench.journal import Journal
from drills.workbench.scene import Scene, new_key
from gates.deployment.ids import new_id
from gates.deployment.requests import Answer
from gates.deployment.tenants import OUTBOX_FLAG, REPLAY_FLAG

ERRORS = ("ledger-a", "ledger-b")
TWICE = 2


@dataclass
class Swept:
    """What a round of replays showed. moved, used: items that it moved, and that its tenant's budget was charged for in
    day and month; refused: replays that were refused as was due; admitted: those that were not refused; odd: those that
    were answered otherwise, which shows neither.
    """

    moved: int = 0
    used: tuple[int, int] = (0, 0)
    refused: int = 0
    odd: list[str] = field(default_factory=list)
    admitted: list[str] = field(default_factory=list)


def replays(scene: Scene, journal: Journal) -> Swept:
    """Replays and dry runs of each choice of items, repeated, under a reused key, and refused."""
    swept = Swept()
    company = scene.company("ledger")
    items = {error: scene.add_items(company, 8, error_type=error) for error in ERRORS}
    chosen: tuple[dict[str, Any], ...] = (
        {"max": 1},
        {"dlq_ids": items["ledger-a"][-1:]},
        {"max": 2, "error_type": "ledger-b"},
        {"dlq_ids": [*items["ledger-b"][-1:], new_id("item")], "error_type": "ledger-b"},
        {"max": 1, "error_type": "ledger-none"},
    )
    first = [{**choice, "dry_run": d, "force": f} for choice, d, f in product(chosen, (True, False), (False, True))]
    for choice in chosen:
        key = new_key()
        first += [{**choice, "idempotency_key": key, **changed} for changed in ({}, {}, {"force": True})]
    for fields in first:
        answer = _replay(scene, company, fields)
        if answer.status == 200 and not fields.get("dry_run") and not answer.json().get("duplicate"):
            swept.moved += len(answer.json().get("items") or ())
    swept.used = scene.used(company) if scene.claims("budgets") else (swept.moved, swept.moved)

    def refused(code: str) -> None:
        for choice, dry, force in product(chosen, (True, False), (False, True)):
            fields = {**choice, "dry_run": dry, "force": force}
            answer = _replay(scene, company, fields)
            if answer.code == code:
                swept.refused += 1
            else:
                said = f"{fields} was answered {answer.status} {answer.code}".rstrip()
                (swept.admitted if answer.status < 300 else swept.odd).append(f"{said} where {code} was due")

    if scene.claims("budgets"):
        scene.budget(company, daily_limit=1, daily_used=1, monthly_used=1)
        refused("budget_exhausted")
        scene.budget(company)
    if scene.claims("pause"):
        scene.pause(company)
        refused("agents_paused")
        scene.pause(company, on=False)
    if scene.claims("flags"):
        scene.set_flag(company, REPLAY_FLAG, enabled=False)
        refused("feature_disabled")
    journal.look(scene.db, [company])
    return swept


def events(scene: Scene, journal: Journal) -> None:
    """Events with and without a key and an id, sent twice, by the outbox and by the direct path."""
    company = scene.company("ledger")
    for by_outbox in (True, False) if scene.claims("flags") else (True,):
        if not by_outbox:
            scene.set_flag(company, OUTBOX_FLAG, enabled=False)
        for key, event_id in product((None, "k"), (None, new_id("event"))):
            for _ in range(TWICE):
                payload = {"n": by_outbox, "of": ["ledger", key], "ünï": 1.5}
                scene.http.send(scene.event_request(company, key=key, event_id=event_id, payload=payload))
    journal.look(scene.db, [company])


def _replay(scene: Scene, company: str, fields: Mapping[str, Any]) -> Answer:
    """One replay, whatever is answered."""
    scene.reset_limit(company)
    return scene.http.send(scene.replay_request(company, **scene.known(**fields)))
