"""What a deployment answers over HTTP, compared with the endpoints of the contract. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from gates.contract.contract import Contract, Endpoint
from gates.deployment.requests import SIGNATURE, Answer
from gates.doctor.comparison.compare import ComparedObject, Presence
from gates.doctor.comparison.members import Called, paired, series_of, tenant_in_path
from gates.doctor.matching.assignment import NONE, assign
from gates.doctor.matching.columns import Confidence
from gates.doctor.matching.states import match_values
from gates.doctor.reading.openapi import CODES, ApiDocument, ApiOperation
from gates.doctor.reading.surface import NOWHERE, Surface
from gates.doctor.words import best_likeness, spelled_paths, synonyms, words
from gates.text.foreign import text

KNOWN_BODY, LEAST_BODY = 0.65, 4
"""The score of a body that has every member of the contract's, and how many members it must have."""
LEAST_PATH, LEAST_CODE, SAME_STATUS = 0.55, 0.7, 0.1
_PARAMETER = re.compile(r"\{[^}]*\}|:[A-Za-z_]+")
_METRIC = re.compile(rb"(?m)^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^}]*\})? [0-9.eE+-]+$")
ANSWERED = {
    ("POST /dlq-replay", "status"): ("started", "completed", "dry_run"),
    ("GET /dlq-replay/{replay_run_id}", "status"): ("started", "completed", "stopped", "failed"),
    ("POST /events", "path"): ("outbox", "direct"),
    ("GET /events/{event_id}", "status"): ("pending", "in_flight", "processed", "dead"),
}
"""Endpoint and member of its answer -> its values in the contract."""
STATUS_UNSIGNED = 401
NO_DOCUMENT = "it publishes no OpenAPI document to read this from"


@dataclass(frozen=True, slots=True)
class EndpointMatch:
    """The real endpoint. fields, codes: names of the contract -> real ones, where they differ."""

    endpoint: Endpoint
    path: str
    confidence: Confidence
    reason: str
    operation: ApiOperation | None = None
    said: bool = False
    """gate.yaml says it."""

    @property
    def is_own(self) -> bool:
        return _shape(self.path) == _shape(self.endpoint.path)


@dataclass(frozen=True, slots=True)
class HttpComparison:
    """Every endpoint, member, code and header of the contract; the real endpoints; the answers to unsigned requests."""

    objects: tuple[ComparedObject, ...]
    endpoints: Mapping[str, EndpointMatch]
    unsigned: Mapping[str, int]
    """Endpoint -> the status of a request without credentials."""
    code_member: str = ""
    """The place of the machine-readable code in an error body; empty if no error body was seen."""
    envelope: str = ""
    """The envelope: the member that holds the actual answer."""
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Member of the contract -> value of the contract -> real value, where they differ."""
    key_headers: tuple[str, ...] = ()
    """Other headers that the document lists as keys."""


def compare_http(
    surface: Surface, contract: Contract, paths: Mapping[str, str | None] | None = None, called: Called | None = None
) -> HttpComparison:
    """Compare. If nothing answers, everything is unknown. paths: of gate.yaml, path of the contract -> real, or None if
    there is none. called: names of the deployment's own columns.
    """
    called = called or {}
    found = _said(_match_endpoints(surface, contract, called), surface, contract, paths or {})
    objects: list[ComparedObject] = []
    for endpoint in contract.endpoints.values():
        one = found.get(endpoint.name)
        objects.append(_endpoint(endpoint, one, surface))
        objects += _members(endpoint, one, surface, called)
    objects += _headers(surface, contract, found)
    page = found.get("GET /metrics")
    objects += series_of(surface.answers.get(("GET", page.path)) if page else None, contract)
    unsigned = {n: surface.status("POST", m.path) for n, m in found.items() if surface.status("POST", m.path)}
    envelopes = (m.operation.envelope for m in found.values() if m.operation and m.operation.envelope)
    used = {(o.real or o.name).lower() for o in objects if o.kind == "header"}
    keys = surface.document.key_headers if surface.document else ()
    further = tuple(h for h in keys if h.lower() not in used)
    values = _values(found, called)
    return HttpComparison(tuple(objects), found, unsigned, _code_member(surface), next(envelopes, ""), values, further)


def _values(found: Mapping[str, EndpointMatch], called: Called) -> dict[str, dict[str, str]]:
    """Other words for the values of answers, as listed in the document."""
    made: dict[str, dict[str, str]] = {}
    for (name, member), wanted in ANSWERED.items():
        one = found.get(name)
        operation = one.operation if one else None
        if one is None or operation is None:
            continue
        real = paired(one.endpoint.answer, operation.answer, called).get(member, ("", 0.0))[0]
        alike = match_values(wanted, operation.values.get(real, ()), synonyms())
        made.setdefault(member, {}).update({w: r for w, r in alike.items() if w != r})
    return {member: values for member, values in made.items() if values}


def _match_endpoints(surface: Surface, contract: Contract, called: Called) -> dict[str, EndpointMatch]:
    if surface.unreached:
        return {}
    if surface.document is not None and surface.document.place != "/":  # the root lists the tables of PostgREST
        return _by_document(surface, surface.document, contract, called)
    found = {}
    for endpoint in contract.endpoints.values():
        one = _by_answers(surface, endpoint)
        if one is not None:
            found[endpoint.name] = one
    return found


def _said(
    found: dict[str, EndpointMatch], surface: Surface, contract: Contract, paths: Mapping[str, str | None]
) -> dict[str, EndpointMatch]:
    """The endpoints at the paths that a person has given; those match by prefix."""
    made = dict(found)
    for endpoint in contract.endpoints.values():
        prefixes = [p for p in paths if endpoint.path == p or endpoint.path.startswith(f"{p}/")]
        prefix = max(prefixes, key=len, default="")
        real = paths.get(prefix)
        if prefix and real is None:  # there is none
            made.pop(endpoint.name, None)
        elif real is not None and not surface.unreached:
            path = real + endpoint.path[len(prefix) :]
            listed = surface.document.operations if surface.document else ()
            same = (o for o in listed if o.method == endpoint.method and _shape(o.path) == _shape(path))
            made[endpoint.name] = EndpointMatch(
                endpoint, path, Confidence.SURE, "gate.yaml says so", next(same, None), said=True
            )
    return made


def _by_document(
    surface: Surface, document: ApiDocument, contract: Contract, called: Called
) -> dict[str, EndpointMatch]:
    """The best assignment of the documented operations, besides endpoints that answer undocumented."""
    wanted = [*contract.endpoints.values()]
    scores = [[_operation_score(e, o, called) for o in document.operations] for e in wanted]
    placed = assign(scores, LEAST_PATH)
    found = {}
    for endpoint, row, place in zip(wanted, scores, placed, strict=True):
        if place == NONE:
            one = _by_answers(surface, endpoint)
            if one is not None:
                found[endpoint.name] = one
            continue
        operation = document.operations[place]
        confidence = (
            Confidence.SURE if row[place] >= 0.95 else Confidence.LIKELY if row[place] >= 0.7 else Confidence.PERHAPS
        )
        reason = f"{document.place} lists {operation.method} {operation.path}"
        found[endpoint.name] = EndpointMatch(endpoint, operation.path, confidence, reason, operation)
    return found | _below(document, contract, found)


def _below(document: ApiDocument, contract: Contract, found: Mapping[str, EndpointMatch]) -> dict[str, EndpointMatch]:
    """The endpoints with an id below one whose path is known, whatever their last part is called."""
    made = {}
    for endpoint in contract.endpoints.values():
        parent = next((m for n, m in found.items() if n == f"POST {endpoint.path.partition('/{')[0]}"), None)
        if endpoint.name in found or parent is None or "{" not in endpoint.path:
            continue
        wanted = f"{_shape(parent.path)}/:id"
        for one in document.operations:
            if one.method == endpoint.method and _shape(one.path) == wanted:
                reason = f"{document.place} lists it below {parent.path}"
                made[endpoint.name] = EndpointMatch(endpoint, one.path, Confidence.LIKELY, reason, one)
    return made


def _operation_score(endpoint: Endpoint, operation: ApiOperation, called: Called) -> float:
    """The score: mostly the path, then members of body and answer; a body with all members known is enough."""
    if operation.method != endpoint.method:
        return 0.0
    shape = _shape(operation.path)
    if shape == _shape(endpoint.path):
        return 1.0
    if shape.count(":id") != _shape(endpoint.path).count(":id") + bool(tenant_in_path(operation.body, called)):
        return 0.0
    spelled = [words(p.replace(":id", "")) for p in spelled_paths(endpoint.name)]
    path = words(_PARAMETER.sub("", operation.path))
    named = max((_tail_likeness(s, path) for s in spelled), default=0.0)
    shares = [
        len(paired(wanted, real, called)) / len(wanted)
        for wanted, real in ((endpoint.body, operation.body), (endpoint.answer, operation.answer))
        if wanted
    ]
    share = sum(shares) / len(shares) if shares else named
    whole = KNOWN_BODY if shares and len(endpoint.body) >= LEAST_BODY and shares[0] == 1.0 else 0.0
    return max(0.94 * (0.65 * named + 0.35 * share), whole)


def _tail_likeness(spelled: tuple[str, ...], path: tuple[str, ...]) -> float:
    """How similar a path is to this one, or, for slightly less, to its end: there may be a prefix."""
    whole = best_likeness([spelled], path)
    return max(whole, 0.95 * best_likeness([spelled], path[-len(spelled) :]) if spelled else 0.0)


def _by_answers(surface: Surface, endpoint: Endpoint) -> EndpointMatch | None:
    method = "OPTIONS" if endpoint.method == "POST" else "GET"
    if "{" in endpoint.path:
        return None
    for path in (endpoint.path, *surface.spelled(endpoint.name)):
        if surface.is_there(method, path) and _fits(endpoint, surface.answers[method, path]):
            sure = Confidence.SURE if path == endpoint.path else Confidence.PERHAPS
            return EndpointMatch(endpoint, path, sure, f"{method} {path} answers {surface.status(method, path)}")
    return None


def _fits(endpoint: Endpoint, answer: Answer) -> bool:
    """Whether an answer is of the kind that the endpoint gives; a web page is not."""
    if endpoint.method == "POST":
        return True
    if "html" in (answer.header("content-type") or "") or answer.body.lstrip()[:1] == b"<":
        return False
    if answer.status in {401, 403}:
        return True
    if endpoint.path == "/metrics":
        return answer.status == 200 and bool(_METRIC.search(answer.body[:200_000]))
    if endpoint.path == "/version":
        return bool(paired(endpoint.answer, dict.fromkeys(answer.json(), ""), {}))
    if endpoint.path == "/openapi.json":
        return isinstance(answer.json().get("paths"), dict)
    return answer.status in {200, 204, 503}


def _shape(path: str) -> str:
    return _PARAMETER.sub(":id", path).strip("/").lower()


# --- objects -----------------------------------------------------------------------------------------------------


def _endpoint(endpoint: Endpoint, one: EndpointMatch | None, surface: Surface) -> ComparedObject:
    here = partial(ComparedObject, "endpoint", endpoint.name, endpoint.area)
    if one is not None:
        presence = Presence.PRESENT if one.is_own else Presence.RENAMED
        real = "" if one.is_own else f"{endpoint.method} {one.path}"
        status = surface.status("POST" if endpoint.method == "POST" else "GET", one.path)
        if endpoint.method == "POST" and 200 <= status < 300:
            presence, said = Presence.DIFFERS, f"a request without credentials and without sense is answered {status}"
        elif one.is_own and (status := _status_of_nobody(endpoint, surface)) in {200, 404}:
            presence, said = (
                Presence.DIFFERS,
                f"GET of an unknown id without credentials answers {status}; allowed: 401",
            )
        else:
            said = "" if one.is_own else one.reason
        return here(presence, real, one.confidence, said, said=one.said)
    if surface.unreached:
        return here(Presence.UNKNOWN, detail="nothing answers")
    method = "OPTIONS" if endpoint.method == "POST" else "GET"
    if "{" in endpoint.path:
        if (status := _status_of_nobody(endpoint, surface)) in {400, 401, 403}:
            return here(Presence.PRESENT)
        said = f"GET of an id that does not exist answers {status}" if status else "it has no answer in time"
        return here(Presence.UNKNOWN, detail=said)
    status, control = surface.status(method, endpoint.path), surface.status(method, NOWHERE)
    if status == control and status not in {0, 404}:
        said = f"{method} of every path answers {status}, also where there is nothing"
        return here(Presence.UNKNOWN, detail=said)
    if not status or status >= 500:
        said = f"{method} {endpoint.path} {f'answers {status}' if status else 'has no answer in time'}"
        return here(Presence.UNKNOWN, detail=said)
    said = f"{method} {endpoint.path} answers {status}"
    return here(Presence.ABSENT, detail=said)


def _status_of_nobody(endpoint: Endpoint, surface: Surface) -> int:
    """For a path with an id: how an unknown id without credentials is answered; 0 where nothing was asked."""
    prefix, is_of_one, _ = endpoint.path.partition("{")
    found = (a.status for (m, p), a in surface.answers.items() if is_of_one and m == "GET" and p.startswith(prefix))
    return next(found, 0)


def _members(
    endpoint: Endpoint, one: EndpointMatch | None, surface: Surface, called: Called
) -> Iterator[ComparedObject]:
    """The members of body and answer, and the codes of refusals, as the document has them."""
    document = surface.document
    operation = one.operation if one else None
    for kind, wanted in (("body member", endpoint.body), ("answer member", endpoint.answer)):
        real = {} if operation is None else operation.body if kind == "body member" else operation.answer
        known = paired(wanted, real, called)
        for name in wanted:
            whole = f"{endpoint.name} {name}"
            here = partial(ComparedObject, kind, whole, endpoint.area)
            if not real:
                said = NO_DOCUMENT if document is None else "the document does not list it"
                yield here(Presence.UNKNOWN, detail=said)
            elif name not in known:
                yield here(Presence.ABSENT)
            else:
                found, score = known[name]
                same = found == name
                presence = Presence.PRESENT if same else Presence.RENAMED
                confidence = Confidence.LIKELY if score >= 0.85 else Confidence.PERHAPS
                yield here(presence, "" if same else found, None if same else confidence)
    yield from _refusals(endpoint, operation, document, _unsigned_code(one, surface))


def _unsigned_code(one: EndpointMatch | None, surface: Surface) -> str:
    """The code of the refusal of a request without credentials; empty if none was seen."""
    answer = surface.answers.get(("POST", one.path)) if one is not None and one.endpoint.method == "POST" else None
    if answer is None or answer.status != STATUS_UNSIGNED:
        return ""
    found: object = answer.json()
    for name in _code_member(surface).split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return text(found, 100) if isinstance(found, str) else ""


def _refusals(
    endpoint: Endpoint, operation: ApiOperation | None, document: ApiDocument | None, unsigned: str
) -> Iterator[ComparedObject]:
    """Codes from the document, and from refusals of requests without credentials. A missing code is unknown: a document
    proves no absence.
    """
    named = [(c, s) for s, cs in (operation.codes if operation else {}).items() for c in dict.fromkeys(cs)]
    wanted = [*endpoint.refusals.items()]
    scores = [[_code_score(code, status, *real) for real in named] for code, status in wanted]
    for (code, status), row, place in zip(wanted, scores, assign(scores, LEAST_CODE), strict=True):
        whole = f"{endpoint.name} {code}"
        here = partial(ComparedObject, "refusal", whole, endpoint.area)
        if code == "unauthenticated" and unsigned:
            same = unsigned == code
            presence, sure = (Presence.PRESENT, None) if same else (Presence.RENAMED, Confidence.SURE)
            shown = "" if same else unsigned
            yield here(presence, shown, sure, "" if same else "so it answered")
            continue
        if place == NONE:
            said = NO_DOCUMENT if document is None else "the document does not name this code"
            yield here(Presence.UNKNOWN, detail=said)
            continue
        real, other = named[place]
        if (real, other) == (code, status):
            yield here(Presence.PRESENT)
            continue
        confidence = Confidence.LIKELY if row[place] >= 0.9 else Confidence.PERHAPS
        is_everywhere = len([c for c, _ in named if c == real]) > 1  # one list of codes for all refusals
        shown = real if other == status or is_everywhere else f"{real} ({other})"
        yield here(Presence.RENAMED, shown, confidence)


def _code_score(code: str, status: int, real: str, other: int) -> float:
    """Mostly its words; an equal status adds to it."""
    if (real, other) == (code, status):
        return 1.5
    return best_likeness(synonyms().spellings("codes", code), words(real)) + SAME_STATUS * (status == other)


def _headers(surface: Surface, contract: Contract, found: Mapping[str, EndpointMatch]) -> Iterator[ComparedObject]:
    listed = {h for m in found.values() if m.operation for h in m.operation.headers}
    sent = {k for a in surface.answers.values() for k, _ in a.headers}
    known = {h.lower(): h for h in (*listed, *sent)}
    for name, area in contract.headers.items():
        here = partial(ComparedObject, "header", name, area)
        if name.lower() in known:
            yield here(Presence.PRESENT)
            continue
        spelled = [s.lower() for s in synonyms().headers.get(name, ())]
        ending = f"-{name.lower().removeprefix('x-')}"
        near = next((known[s] for s in spelled if s in known), "") or next((h for h in known if h.endswith(ending)), "")
        if not near and name == SIGNATURE:  # all that sign use the same header
            near = next((h for h in listed if h.lower().endswith("-signature")), "")
        if near:
            yield here(Presence.RENAMED, near, Confidence.LIKELY, "people call it so")
        else:
            said = "nothing answers" if surface.unreached else "no answer and no document shows it"
            yield here(Presence.UNKNOWN, detail=said)


def _code_member(surface: Surface) -> str:
    """The place of the code in the refusals that were seen: a member, or two with a dot."""
    for (_, _), answer in sorted(surface.answers.items(), key=lambda one: one[0]):
        if answer.status < 400:
            continue
        body = answer.json()
        for name in dict.fromkeys(("code", "error_code", "errorCode", "error", "reason", *body)):
            value = body.get(name)
            if name in CODES - {"type", "kind"} and isinstance(value, str) and value and " " not in value:
                return name
            if isinstance(value, dict):
                inner = next((n for n in ("code", "type", "reason", "kind") if isinstance(value.get(n), str)), "")
                if inner:
                    return text(f"{name}.{inner}", 100)
    return ""
