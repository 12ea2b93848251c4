"""The claims in gate.yaml: `contract: {claims, preset, options, dropped}`."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gates.contract.contract import contract
from gates.contract.queues import Queue, presets
from gates.contract.scope import QUEUE, SERVICE, Dropped, Scope
from gates.decision.queue_options import queue_options
from gates.errors import ConfigError, raise_all
from gates.inputs.shapes import Anything, Choice, Day, Fields, ListOf, Text
from gates.inputs.strict_yaml import YamlNode

LONGEST = dt.timedelta(days=366)
"""For how long a person may accept that something is amiss, or gone."""

DROPPED = Fields(
    {
        "area": (Choice(contract().claimable), "The area that is not claimed any more."),
        "reason": (Text(), "Why the deployment does not promise it any more."),
        "owner": (Text(), "Who answers for it."),
        "expires": (Day(), "The last day (UTC) on which this counts, within a year; a promotion makes it last."),
    },
    needed=("area", "reason", "owner", "expires"),
)
CONTRACT = Fields(
    {
        "preset": (Choice(tuple(contract().presets)), "The known kind of deployment that this is."),
        "claims": (
            ListOf(Choice(contract().claimable), 1),
            "The areas that the deployment claims; by default all of a replay service. Others do not apply.",
        ),
        "options": (Anything(), "What the preset needs to know."),
        "dropped": (ListOf(DROPPED), "Areas that were claimed before, and that a person lets go."),
    }
)


def scope_of(given: Mapping[str, Any]) -> Scope:
    """The claims on the contract, in its order; by default those of the preset, or all of a replay service."""
    dropped = [Dropped(**one) for one in given.get("dropped", ())]
    scope = contract().scope(given.get("claims", ()), given.get("preset", ""), dropped)
    queue = queue_named(given)
    return queue.scoped(scope) if queue and QUEUE in scope.claims else scope


def queue_named(given: Mapping[str, Any]) -> Queue | None:
    """The queue that the policy names, with its options. Raise ConfigError if they are wrong."""
    preset = presets().get(given.get("preset", ""))
    return Queue(preset, queue_options(preset, given.get("options"))) if preset else None


def check_contract(node: YamlNode, given: Mapping[str, Any], today: dt.date) -> None:
    """Raise ConfigError (file:line:column) for wrong claims.

    These are: nothing is left for the floor; an area named twice; a queue without its preset; wrong options; an area
    that is dropped although claimed, or dropped past its date.
    """
    claimed = node.member("claims")
    if claimed is not None:
        _check_claims(claimed, given["claims"], given.get("preset", ""))
    scope = scope_of(given)
    if QUEUE in scope.claims and queue_named(given) is None:
        raise node.place.error(f"a claim of {QUEUE} without a preset", f"preset: {', '.join(presets())}", "Name it")
    dropped = node.member("dropped")
    for item, one in zip(dropped.items() if dropped else (), scope.dropped, strict=True):
        if one.area in scope.claims:
            raise item.place.error(f"{one.area}, which is claimed", "areas that are not claimed", "Remove one")
        if one.expires < today:
            said = f"that {one.area} was let go, which ended on {one.expires}"
            do = f"Ask {one.owner}: claim it again, renew this, or remove it after a promotion"
            raise item.place.error(said, f"{today} or later", do)
        raise_all(too_far(item, f"that {one.area} was let go", one.expires, today))


def too_far(node: YamlNode, what: str, expires: dt.date, today: dt.date) -> Iterator[ConfigError]:
    """What somebody accepts for longer than a year: nobody would look at it again."""
    latest = today + LONGEST
    if expires > latest:
        yield node.place_of("expires").error(
            f"{what} until {expires}", f"{latest} or earlier", "Name such a day, and renew it then"
        )


def _check_claims(node: YamlNode, claims: Sequence[str], preset: str) -> None:
    for number, (item, claim) in enumerate(zip(node.items(), claims, strict=True)):
        if claim in claims[:number]:
            raise item.place.error(f"{claim} twice", "each area once", "Remove one")
    for area in contract().presets.get(preset, ()):
        if area not in claims:
            said = f"claims without {area}, which is what the preset stands for"
            raise node.place.error(said, f"claims with {area}", f"Add {area}, or remove the preset")
    lacking = [area for area in SERVICE if area not in claims]
    if lacking and set(claims) != {QUEUE}:
        raise node.place.error(
            f"claims without {' and '.join(lacking)}",
            f"claims with {' and '.join(SERVICE)}, on which the proof drill and the tenancy of the floor stand; "
            f"or {QUEUE} alone, which has a proof of its own",
            f"Add {', '.join(lacking)}",
        )
