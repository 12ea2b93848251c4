"""Matches members of bodies and answers, and series of /metrics, with those of the contract. Pure."""

import re
from collections.abc import Iterator, Mapping
from functools import partial

from gates.contract.contract import Contract
from gates.deployment.requests import Answer
from gates.doctor.comparison.compare import ComparedObject, Presence
from gates.doctor.matching.assignment import NONE, assign
from gates.doctor.matching.columns import Confidence
from gates.doctor.matching.states import shared_word
from gates.doctor.words import best_likeness, synonyms, words

LEAST_MEMBER, LEAST_TENANT = 0.6, 0.75
_SERIES = re.compile(r"(?m)^(?:# TYPE )?([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^}\n]*\})? [0-9a-z.eE+-]+$")
MOST_METRICS, LEAST_METRIC = 200_000, 0.7
COLUMN_OF = {
    "company_id": "dead_letter_queue.company_id",
    "dlq_ids": "dead_letter_queue.id",
    "items": "dead_letter_queue.id",
    "error_type": "dead_letter_queue.error_type",
    "idempotency_key": "replay_runs.idempotency_key",
    "replay_run_id": "replay_runs.id",
    "target_count": "replay_runs.target_count",
    "event_id": "event_outbox.event_id",
    "event_type": "events.event_type",
    "aggregate_key": "events.aggregate_key",
    "payload": "events.payload",
    "path": "events.path",
}
"""Member of a body or an answer -> the column of the contract that holds it."""
Called = Mapping[str, tuple[str, ...]]
"""Member of the contract -> the words of the deployment's name for its column."""


def called_by(columns: Mapping[str, str]) -> Called:
    """Words of members that follow from columns: table.column of the contract -> real column."""
    known = {member: columns.get(column, "") for member, column in COLUMN_OF.items()}
    return {member: words(real) for member, real in known.items() if real}


SHAPES = {"list": "array", "boolean": "boolean", "object": "object", "integer": "integer"}
"""First word of a type of the contract -> type in a document."""
NUMBERS = frozenset({"number", "int32", "int64", "float", "double"})


def _same_shape(wanted: str, real: str) -> bool:
    """Whether a member can be the one, as far as the document gives its type."""
    shape = SHAPES.get(wanted.partition(" ")[0], "")
    found = "integer" if real in NUMBERS else real
    if not wanted or found not in SHAPES.values():
        return not wanted or not found or shape not in {"array", "boolean", "object"}
    return found == shape or (not shape and found == "integer")


def _words_of(member: str) -> list[tuple[str, ...]]:
    """The names of a member: its own, and with that of the object around it. In a path the tenant's id is often called
    like the tenant.
    """
    place, _, whole = member.rpartition(":")
    outer, _, name = whole.rpartition(".")
    if place == "path":
        return [words(name), (*words(name), "id")]
    return [words(name), words(f"{outer.rpartition('.')[2]}_{name}")] if outer else [words(name)]


def paired(wanted: Mapping[str, str], real: Mapping[str, str], called: Called) -> dict[str, tuple[str, float]]:
    """The real member of each of the contract, with its score. A member with its column's name is certain."""
    names, others = [*wanted], [*real]
    known = synonyms()
    scores = [
        [
            0.0
            if not _same_shape(wanted[n], real[o])
            else 1.0
            if o == n
            else 0.995
            if called.get(n) in [v for w in _words_of(o) for v in (w, (*w, "id"))]
            else (0.97 if "." in o else 0.99)
            * max(best_likeness(known.spellings("fields", n), w) for w in _words_of(o))
            for o in others
        ]
        for n in names
    ]
    return {
        n: (others[p], row[p])
        for n, row, p in zip(names, scores, assign(scores, LEAST_MEMBER), strict=True)
        if p != NONE
    }


def tenant_in_path(members: Mapping[str, str], called: Called) -> str:
    """The member of a request that is the tenant's id in its path; empty if there is none."""
    listed = {m: k for m, k in members.items() if m.startswith("path:") and words(m.removeprefix("path:")) != ("id",)}
    real, score = paired({"company_id": ""}, listed, called).get("company_id", ("", 0.0))
    return real if score >= LEAST_TENANT else ""


def series_of(answer: Answer | None, contract: Contract) -> Iterator[ComparedObject]:
    """The series of /metrics. A missing one is unknown: a counter may have counted nothing yet."""
    named = dict.fromkeys(_SERIES.findall(answer.body[:MOST_METRICS].decode("latin-1"))) if answer else ()
    known, series = synonyms(), [*named]
    shared = shared_word(series)
    spelled = [(s, tuple(w for w in words(s) if w != shared)) for s in series]
    scores = [
        [1.5 if s == n else best_likeness(known.spellings("metrics", n), w) for s, w in spelled]
        for n in contract.metrics
    ]
    unlike = "no series of /metrics is like it" if answer else "GET /metrics gave no answer within the time"
    for (name, area), place in zip(contract.metrics.items(), assign(scores, LEAST_METRIC), strict=True):
        here = partial(ComparedObject, "metric", name, area)
        if place == NONE:
            yield here(Presence.UNKNOWN, detail=unlike)
        elif series[place] in {name, name.removesuffix("_total")}:
            yield here(Presence.PRESENT)
        else:
            yield here(Presence.RENAMED, series[place], Confidence.PERHAPS)
