"""The part of the contract that a policy claims, and which checks it leaves out. Pure; the decision goes by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gates.evidence import CheckSpec, JsonValue

OWN = "gate"
"""The area that no policy claims or leaves out: what holds the gate to its own word."""

SERVICE = ("replay", "tenancy")
"""What every claim on a replay service must hold: the proof drill and the tenancy of the floor stand on it."""

QUEUE = "queue"
"""A deployment that is a library's queue alone claims this, and has a proof of its own."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a verdict speaks of. claims, unclaimed: areas in the order of the contract; no claims: all of it.

    preset: the known kind of deployment that the policy names, or empty.
    """

    claims: tuple[str, ...] = ()
    unclaimed: tuple[str, ...] = ()
    preset: str = ""

    @property
    def is_queue(self) -> bool:
        """Whether a queue is all that is claimed."""
        return self.claims == (QUEUE,)

    def leaves_out(self, spec: CheckSpec) -> str:
        """Why a check does not apply: its own area is not claimed, or another that it needs; empty where it applies.

        A check without an area is the user's own, and applies.
        """
        if not self.claims or not spec.area:
            return ""
        if spec.area not in {OWN, *self.claims}:
            return f"the policy does not claim {spec.area}"
        missing = [area for area in spec.also if area not in self.claims]
        return f"the policy does not claim {', '.join(missing)}, which this check needs, too" if missing else ""

    @property
    def text(self) -> str:
        """The headline's words for it; empty for the whole contract."""
        if self.is_queue:
            return f"within {QUEUE}" + (f" ({self.preset})" if self.preset else "")
        if not self.unclaimed:
            return ""
        return f"within {', '.join(self.claims)}; not claimed: {', '.join(self.unclaimed)}"

    def to_json(self) -> dict[str, JsonValue]:
        return {"claims": list(self.claims), "unclaimed": list(self.unclaimed), "preset": self.preset}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scope:
        """Raise KeyError or TypeError on anything that to_json did not write."""
        return cls(tuple(map(str, data["claims"])), tuple(map(str, data["unclaimed"])), str(data["preset"]))


WHOLE = Scope()
"""No claims: all of the contract."""
