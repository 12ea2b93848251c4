"""The part of the contract that a policy claims, and which checks it leaves out. Pure; the decision uses it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gates.evidence import CheckSpec, JsonValue
from gates.text.patterns import matches

OWN = "gate"
"""The area that no policy claims or leaves out: the checks of the gate itself."""

SERVICE = ("replay", "tenancy")
"""Areas of every claim on a replay service: the proof drill and the floor's tenancy checks need them."""

QUEUE = "queue"
"""The claim of a deployment that is only a library's queue; it has a proof of its own."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """An area that was claimed before and that a person drops: until that day (inclusive, UTC) it is no finding."""

    area: str
    reason: str
    owner: str
    expires: dt.date


@dataclass(frozen=True, slots=True)
class OwnLimit:
    """A limit of the service by the policy, and the contract's."""

    name: str
    policy: int
    contract: int


@dataclass(frozen=True, slots=True)
class Scope:
    """What a verdict is about.

    claims, unclaimed: areas in the order of the contract; no claims: all of it. preset: the known kind of deployment
    that the policy names, or empty. queue: the queue with its options, as gates.contract.queues writes it. absent:
    needs of checks that this queue lacks, and patterns of checks that need what `names:` says is missing -> the reason.
    may_lack: those that an older version of it is known to lack. dropped: what was claimed before and is not. limits:
    those of the policy that differ from the contract's. objects: object of the contract -> its real name.
    """

    claims: tuple[str, ...] = ()
    unclaimed: tuple[str, ...] = ()
    preset: str = ""
    queue: str = ""
    absent: tuple[tuple[str, str], ...] = ()
    may_lack: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    limits: tuple[OwnLimit, ...] = ()
    objects: tuple[tuple[str, str], ...] = ()

    @property
    def is_queue(self) -> bool:
        """Whether only a queue is claimed."""
        return self.claims == (QUEUE,)

    def queue_elsewhere(self, stage: str) -> str:
        """Where the queue checks are made that a single stage leaves out; empty if it leaves out none."""
        left_out = bool(self.queue) and stage != "alerts"
        return "the checks of the queue are made by `gate alerts` and by `gate run`" if left_out else ""

    def leaves_out(self, spec: CheckSpec) -> str:
        """Why a check does not apply: its own area, or another that it needs, is not claimed; empty if it applies. A
        check without an area is the user's own, and applies.
        """
        if not self.claims or not spec.area:
            return ""
        lacking = [why for need, why in self.absent if need in spec.needs or matches(spec.id, (need,))]
        if lacking:
            return "; ".join(dict.fromkeys(lacking))
        if spec.area not in {OWN, *self.claims}:
            return f"the policy does not claim {spec.area}"
        missing = [area for area in spec.also if area not in self.claims]
        return f"the policy does not claim {', '.join(missing)}, which this check needs, too" if missing else ""

    @property
    def text(self) -> str:
        """How the headline describes it; empty for the whole contract."""
        if self.is_queue:
            return f"within {QUEUE}" + (f" ({self.preset})" if self.preset else "")
        told = [f"within {', '.join(self.claims)}", f"not claimed: {', '.join(self.unclaimed)}"] * bool(self.unclaimed)
        if self.limits:
            own = ", ".join(f"{one.name} {one.policy} (contract: {one.contract})" for one in self.limits)
            told.append(f"with limits of the policy's own: {own}")
        return "; ".join(told)

    def in_its_words(self, text: str) -> str:
        """A text of ours with the real names of the deployment's objects."""
        real = dict(self.objects)
        words = "|".join(map(re.escape, sorted(real, key=len, reverse=True)))
        return re.sub(rf"(?<![\w./-])({words})(?![\w/])", lambda m: real[m[1]], text) if words else text

    @property
    def let_go(self) -> str:
        """Who dropped what was claimed before, in words; empty if nothing was dropped."""
        told = [f"{d.area} (until {d.expires} by {d.owner}: {d.reason})" for d in self.dropped]
        return f"no longer claimed: {', '.join(told)}" if told else ""

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "claims": list(self.claims),
            "unclaimed": list(self.unclaimed),
            "preset": self.preset,
            "queue": self.queue,
            "absent": [list[JsonValue](pair) for pair in self.absent],
            "may_lack": list(self.may_lack),
            "dropped": [{**dataclasses.asdict(d), "expires": d.expires.isoformat()} for d in self.dropped],
            **({"limits": [dataclasses.asdict(one) for one in self.limits]} if self.limits else {}),
            **({"objects": [list[JsonValue](pair) for pair in self.objects]} if self.objects else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scope:
        """Raise KeyError, ValueError or TypeError for anything that to_json did not write."""
        dropped = [Dropped(**{**d, "expires": dt.date.fromisoformat(d["expires"])}) for d in data["dropped"]]
        return cls(
            claims=tuple(map(str, data["claims"])),
            unclaimed=tuple(map(str, data["unclaimed"])),
            preset=str(data["preset"]),
            queue=str(data["queue"]),
            absent=tuple((str(need), str(why)) for need, why in data["absent"]),
            may_lack=tuple(map(str, data["may_lack"])),
            dropped=tuple(dropped),
            limits=tuple(
                OwnLimit(str(d["name"]), int(d["policy"]), int(d["contract"])) for d in data.get("limits", ())
            ),
            objects=tuple((str(ours), str(real)) for ours, real in data.get("objects", ())),
        )


WHOLE = Scope()
"""No claims: all of the contract."""
