"""Faults of idempotency: keys that are forgotten, shared, or answered for another request."""

from __future__ import annotations

import dataclasses
import uuid

from faults.catalogue import service
from faults.probe import Probe
from replay_service.parts import Parts, build_parts
from replay_service.settings import Settings
from replay_service.validation import ReplayRequest, read_replay


def _key_moves_twice(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 2)
        answers = [probe.replay(company, max_items=1, idempotency_key="w").json() for _ in range(2)]
        return bool(answers[0].get("replay_run_id") != answers[1].get("replay_run_id"))


@service(
    "The idempotency key is ignored: a re-sent request replays again.",
    _key_moves_twice,
    ("drill/idempotency/duplicate-one-effect", "drill/idempotency/race-same-request"),
    names=("duplicate", "key"),
)
def key_ignored(settings: Settings) -> Parts:
    def read(raw: bytes) -> ReplayRequest:
        return dataclasses.replace(read_replay(raw), idempotency_key=f"gen-{uuid.uuid4()}")

    return dataclasses.replace(build_parts(settings), read_replay=read)
