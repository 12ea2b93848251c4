"""What a gate.yaml says goes before every guess, and no advice stands on a part of it."""

from __future__ import annotations

import pytest

from gates.contract.names import names_of
from gates.doctor.compare import ComparedObject, Presence
from gates.doctor.said import settled
from gates.doctor.schema import Schema


@pytest.mark.parametrize(
    ("kind", "part", "said", "shown"),
    [
        ("answer member", {"fields": {"status": ["state"]}}, "status", "state"),
        ("answer member", {"fields": {"status": ["state", "phase"]}}, "status", "state or phase"),
        ("refusal", {"codes": {"forbidden": ["not_found", 404]}}, "forbidden", "not_found (404)"),
        ("refusal", {"codes": {"forbidden": "denied"}}, "forbidden", "denied"),
    ],
)
def test_names_over_http_are_shown_as_they_are_said(kind: str, part: dict[str, object], said: str, shown: str) -> None:
    """A list of a member holds its names, and a list of a code holds its status."""
    one = ComparedObject(kind, f"POST /dlq-replay {said}", "replay", Presence.ABSENT)
    (found,) = settled([one], names_of({"http": part}), Schema())
    assert (found.presence, found.real, found.said) == (Presence.RENAMED, shown, True)
