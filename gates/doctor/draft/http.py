"""The HTTP part of the draft: `names: http:`. Pure."""

import re

from gates.contract.contract import Contract
from gates.doctor.comparison.compare import ComparedObject, Presence
from gates.doctor.comparison.http import HttpComparison
from gates.doctor.comparison.members import paired
from gates.doctor.diagnosis import Diagnosis
from gates.doctor.draft.lines import Lines, comment, guess, scalar
from gates.doctor.matching.presets import KEY_HEADER
from gates.doctor.reading.openapi import ApiOperation
from gates.doctor.reading.wordings import age_s, call_limits, differing, signature_form
from gates.doctor.said import EITHER
from gates.doctor.sqltypes import id_type
from gates.text import characters

REPLAY, SIGNATURE = "POST /dlq-replay", "X-Transbot-Signature"
BOUNDED = (
    ("batch", "max", "maximum"),
    ("batch", "dlq_ids", "maxItems"),
    ("default_batch", "max", "default"),
    ("key_length", "idempotency_key", "maxLength"),
)
"""Limit of names, member of the body, and the schema keywords that give it; the most telling first."""


def http_lines(found: Diagnosis) -> Lines:
    if found.http is None:
        return
    moved = [m for m in found.http.endpoints.values() if not m.is_own and "{" not in m.endpoint.path]
    if moved:
        yield "    paths:"
    for one in moved:
        yield f"      {one.endpoint.path}: {scalar(one.path)}{comment(f'{one.confidence.word}: {one.reason}')}"
    yield from _renamed(found, "headers", ("header",))
    fields = [*_renamed(found, "fields", ("body member", "answer member"))]
    listed = next((m.operation.errors for m in found.http.endpoints.values() if m.operation and m.operation.errors), "")
    if listed not in {"", "errors"}:
        fields = [*(fields or ["    fields:"]), f"      errors: {scalar(listed)}{comment('likely: by the document')}"]
    yield from fields
    yield from _text_ids(found)
    if found.http.values:
        yield "    values:"
    for member, values in found.http.values.items():
        said = ", ".join(f"{w}: {scalar(r)}" for w, r in values.items())
        yield f"      {member}: {{{said}}}{comment('likely: by their words')}"
    if successes := [*_successes(found.http)]:
        yield f"    success: {{{', '.join(successes)}}}{comment('likely: the document says so')}"
    if found.http.envelope:
        yield f"    envelope: {scalar(found.http.envelope)}{comment('likely: the document nests answers in it')}"
    if found.key:
        yield f"    extra_headers: {{{KEY_HEADER}: ${found.key}}}{comment('the key of the gateway, which is public')}"
    for header in () if found.key else found.http.key_headers:
        variable = "GATEWAY_" + re.sub(r"\W+", "_", header).strip("_").upper()
        yield f"    # extra_headers: {{{characters.line(header)}: ${variable}}}  # a key, says the document: whose?"
    yield from _signature(found.http)
    yield from _renamed(found, "metrics", ("metric",))
    yield from _codes(found)
    if found.http.code_member not in {"", "code"}:
        yield f"    code_member: {scalar(found.http.code_member)}"


def _replay(http: HttpComparison | None) -> ApiOperation | None:
    """The document's operation of a replay."""
    one = http.endpoints.get(REPLAY) if http else None
    return one.operation if one else None


def _text_ids(found: Diagnosis) -> Lines:
    """A line if ids are numbers in the database but text in HTTP, as the document shows for the tenant's."""
    match, operation = found.comparison.tables.get("companies"), _replay(found.http)
    tenant = next((o.real or "company_id" for o in found.objects if o.name == f"{REPLAY} company_id"), "")
    is_text = operation is not None and operation.body.get(tenant) == "string"
    if match and "id" in match.columns and id_type(match.columns["id"].column.type) == "bigint" and is_text:
        yield f"    ids: text{comment(f'likely: the document says that {tenant} is a string')}"


def _signature_note(http: HttpComparison) -> str:
    """What the document says about the signature header."""
    header = next((o.real or o.name for o in http.objects if o.kind == "header" and o.name == SIGNATURE), SIGNATURE)
    operation = _replay(http)
    return operation.notes.get(header.lower(), "") if operation else ""


def _signature(http: HttpComparison) -> Lines:
    """How a request is signed, if the document says so; the service itself refuses a wrong form."""
    if REPLAY not in http.endpoints:
        return
    form = signature_form(_signature_note(http))
    if differs := differing(form):
        told = ", ".join(f"{part}: {scalar(said)}" for part, said in differs.items())
        yield f"    signature: {{{told}}}{comment('likely: the document shows it')}"
    elif not form:
        said = "nothing tells how requests are signed: say it, unless {hex} or t={t},v2={hex} as in the contract"
        yield f'    # signature: {{form: "sha256={{hex}}"}}{comment(said)}'


def limit_lines(found: Diagnosis, contract: Contract) -> Lines:
    """Limits in the document or in the database's functions that differ from the contract's. A wrong limit makes its
    check fail: each is tested at its edge.
    """
    if "edge_rate_limits" not in found.comparison.tables and not (found.http and REPLAY in found.http.endpoints):
        return
    told = _limits_of_document(found.http, contract)
    for name, (value, why) in found.comparison.rows.limits.items():  # code knows better than a description
        other = f"; the document says {told[name][0]}" if name in told and told[name][0] != value else ""
        told[name] = (value, f"{why} counts so{other}")
    fitting = {n: t for n, t in told.items() if contract.limits[n][1] <= t[0] <= contract.limits[n][2]}
    lines = [
        f"    {name}: {value}{comment(f'likely: {why}')}"
        for name, (value, why) in fitting.items()
        if value != contract.limits[name][0]
    ]
    if lines:
        yield "  limits:"
        yield from lines
    untold = [f"{name} {due}" for name, (due, _, _) in contract.limits.items() if name not in fitting]
    if untold:
        yield f"  # limits: nothing tells these, so the contract's are tested at their edges: {', '.join(untold)}"


def _limits_of_document(http: HttpComparison | None, contract: Contract) -> dict[str, tuple[int, str]]:
    operation = _replay(http)
    if http is None or operation is None:
        return {}
    real = {m: r for m, (r, _) in paired(contract.endpoints[REPLAY].body, operation.body, {}).items()}
    for one in http.objects:
        if one.kind == "body member" and one.name.startswith(f"{REPLAY} ") and one.usable:
            real[one.name.rpartition(" ")[2]] = one.real or one.name.rpartition(" ")[2]
    made: dict[str, tuple[int, str]] = {}
    for limit, member, bound in BOUNDED:
        value = operation.bounds.get(real.get(member, ""), {}).get(bound)
        if value is not None:
            made.setdefault(limit, (value, f"the document says {bound} of {real[member]}"))
    notes = call_limits(operation.notes.get("429", ""))
    made |= {name: (value, "so the document describes its 429") for name, value in notes.items()}
    if age := age_s(_signature_note(http)):
        made["signature_age_s"] = (age, "so the document describes the signature")
    return made


def _successes(http: HttpComparison) -> Lines:
    """Path: its success status in the document, if it differs from the contract's."""
    for name, due in (("POST /dlq-replay", 200), ("POST /events", 202)):
        one = http.endpoints.get(name)
        others = [s for s in (one.operation.success if one and one.operation else ()) if s != due]
        if one and len(others) == 1:
            yield f"{one.endpoint.path}: {others[0]}"


def _renamed(found: Diagnosis, title: str, kinds: tuple[str, ...]) -> Lines:
    seen: dict[str, dict[str, ComparedObject]] = {}
    for one in found.objects:
        if one.kind in kinds and one.presence in {Presence.RENAMED, Presence.PRESENT}:
            name = one.name.rpartition(" ")[2]
            seen.setdefault(name, {}).setdefault(one.real or name, one)
    renamed = {name: reals for name, reals in seen.items() if any(real != name for real in reals)}
    if renamed:
        yield f"    {title}:"
    for name, reals in renamed.items():
        listed = [scalar(one) for real in reals for one in real.split(EITHER)]
        shown = listed[0] if len(listed) == 1 else f"[{', '.join(listed)}]"
        yield f"      {name}: {shown}{guess(next(o for r, o in reals.items() if r != name))}"


def _codes(found: Diagnosis) -> Lines:
    lines: dict[str, str] = {}
    for one in found.objects:
        if one.kind == "refusal" and one.presence is Presence.RENAMED:
            code, _, status = one.real.removesuffix(")").partition(" (")
            real = f"[{scalar(code)}, {status}]" if status else scalar(code)
            name = one.name.rpartition(" ")[2]
            lines.setdefault(name, f"      {name}: {real}{guess(one)}")
    if lines:
        yield "    codes:"
        yield from lines.values()
