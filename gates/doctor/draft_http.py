"""The part of the draft that speaks of HTTP: `names: http:`. Pure."""

from __future__ import annotations

import re

from gates.doctor.compare import ComparedObject, Presence
from gates.doctor.diagnosis import Diagnosis
from gates.doctor.drafting import Lines, comment, guess, scalar
from gates.doctor.http_comparison import HttpComparison
from gates.doctor.presets import KEY_HEADER
from gates.doctor.said import EITHER
from gates.text import characters


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
        variable = re.sub(r"\W+", "_", header).strip("_").upper()
        yield f"    # extra_headers: {{{characters.line(header)}: ${variable}}}  # a key, says the document: whose?"
    yield from _renamed(found, "metrics", ("metric",))
    yield from _codes(found)
    if found.http.code_member not in {"", "code"}:
        yield f"    code_member: {scalar(found.http.code_member)}"


def _successes(http: HttpComparison) -> Lines:
    """Path: another status of success than the contract's, as the document lists it."""
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
