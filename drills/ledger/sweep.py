"""One round of replays and events in many combinations, so that the journal has some whatever else was drilled."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, product
from typing import Any

from drills.workbench.journal import Journal
from drills.workbench.scene import Scene, new_key
from gates.deployment.ids import new_id
from gates.deployment.tenants import OUTBOX_FLAG, REPLAY_FLAG

ERRORS = ("ledger-a", "ledger-b")
TWICE = 2


def replays(scene: Scene, journal: Journal) -> None:
    """Replays and dry runs of each choice of items, repeated, under a reused key, and refused; once in a process."""
    if "replays" in journal.swept:
        return
    journal.swept.add("replays")
    company = scene.company("ledger")
    items = {error: scene.add_items(company, 8, error_type=error) for error in ERRORS}
    chosen: tuple[dict[str, Any], ...] = (
        {"max": 1},
        {"dlq_ids": items["ledger-a"][-1:]},
        {"max": 2, "error_type": "ledger-b"},
        {"dlq_ids": [*items["ledger-b"][-1:], new_id("item")], "error_type": "ledger-b"},
        {"max": 1, "error_type": "ledger-none"},
    )
    for choice, dry, force in product(chosen, (True, False), (False, True)):
        _replay(scene, company, **choice, dry_run=dry, force=force)
    for choice in chosen:
        key = new_key()
        for changed in ({}, {}, {"force": True}):
            _replay(scene, company, **choice, idempotency_key=key, **changed)
    scene.budget(company, daily_limit=1, daily_used=1, monthly_used=1)
    _refused(scene, company, chosen)
    if scene.claims("pause"):
        scene.pause(company)
        _refused(scene, company, chosen)
        scene.pause(company, on=False)
    if scene.claims("flags"):
        scene.set_flag(company, REPLAY_FLAG, enabled=False)
        _refused(scene, company, chosen)
    journal.look(scene.db, [company])


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


def _replay(scene: Scene, company: str, **fields: Any) -> None:
    """One replay, whatever is answered: others judge that."""
    scene.reset_limit(company)
    scene.http.send(scene.replay_request(company, **scene.known(**fields)))


def _refused(scene: Scene, company: str, chosen: Sequence[dict[str, Any]]) -> None:
    for choice, (dry, force) in zip(chosen, cycle(product((False, True), repeat=2)), strict=False):
        _replay(scene, company, **choice, dry_run=dry, force=force)
