"""What gate.yaml says already: it is no guess, and mistakes in it are reported. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from gates.contract.names import Names, names_of
from gates.doctor.comparison.compare import NOT_THERE, ComparedObject, Presence
from gates.doctor.matching.columns import Confidence, Pin, Pins
from gates.doctor.matching.presets import KEY_HEADER
from gates.doctor.reading.schema import Schema
from gates.inputs.strict_yaml import YamlNode

SAID = "gate.yaml says so"
EITHER = " or "
"""The separator of the names that one member may have, in output."""
OF_BODIES = dict.fromkeys(("body member", "answer member"), "fields")
MEMBERS = {**OF_BODIES, "header": "headers", "refusal": "codes", "metric": "metrics"}
"""Kinds of objects that cannot be verified by a schema or over HTTP -> their place in `names: http:`."""


def pins_of(names: Names) -> Pins:
    """The tables that it names, as pins for the matching."""
    listed = names.given.get("tables", {})
    return {
        n: Pin(f"{r.schema}.{r.name}", r.columns, tuple(r.expressions), tuple(r.absent), bool(r.calls))
        if r.name
        else None
        for n, r in names.relations.items()
        if n in listed
    }


def home_said(names: Names) -> str:
    """The schema of unqualified names; empty if nothing says so."""
    return str(names.given.get("schema", ""))


def only_extra_headers(names: Names, key: str = "") -> Names:
    """Names with the headers that every request needs, and nothing that changes a statement or an answer. key: the
    variable of a gateway's key, if there is one.
    """
    extra = names.given.get("http", {}).get("extra_headers") or ({KEY_HEADER: f"${key}"} if key else None)
    return names_of({"http": {"extra_headers": extra}}) if extra else Names()


def settled(objects: list[ComparedObject], names: Names, schema: Schema) -> list[ComparedObject]:
    """The objects, with what gate.yaml says of functions, roles and HTTP replacing guesses."""
    if not names:
        return objects
    known: dict[str, Callable[[ComparedObject], ComparedObject]] = {
        "function": lambda o: _function(o, names, schema),
        "role": lambda o: _role(o, names, schema),
        "values": lambda o: replace(o, said=_says_values(o, names)),
        **dict.fromkeys(MEMBERS, lambda o: _member(o, names)),
    }
    return [known[o.kind](o) if o.kind in known else o for o in objects]


def placed(objects: Iterable[ComparedObject], root: YamlNode) -> tuple[ComparedObject, ...]:
    """The objects; if gate.yaml names something that does not exist, with the place in the file."""
    return tuple(replace(o, detail=f"{_place(o, root)}: {o.detail}") if NOT_THERE in o.detail else o for o in objects)


def _place(one: ComparedObject, root: YamlNode) -> str:
    """file:line:column of the entry of an object, or of the nearest member around it."""
    name, _, column = one.name.partition("(")[0].partition(".") if one.kind != "role" else (one.name, "", "")
    parts = {"function": ("functions", name, "is"), "role": ("roles", name)}
    node = root
    for part in ("names", *parts.get(one.kind, ("tables", name, *(("columns", column) if column else ("is",))))):
        node = node.member(part) or node
    return f"{node.place.file}:{node.place.line}:{node.place.column}"


def _function(one: ComparedObject, names: Names, schema: Schema) -> ComparedObject:
    name = one.name.partition("(")[0]
    if name not in names.given.get("functions", {}):
        return one
    said = names.functions[name]
    real = f"{said.schema}.{said.name}"
    return _settled(one, real, is_there="functions" in schema.unread or real in {f.qualified for f in schema.functions})


def _role(one: ComparedObject, names: Names, schema: Schema) -> ComparedObject:
    if one.name not in names.roles:
        return one
    real = names.roles[one.name]
    if real is None:
        return replace(one, presence=Presence.ABSENT, real="", confidence=None, detail=SAID, alternatives=(), said=True)
    return _settled(one, real, is_there="roles" in schema.unread or schema.role(real) is not None)


def _says_values(one: ComparedObject, names: Names) -> bool:
    table, _, column = one.name.partition(".")
    said = names.relations.get(table)
    return said is not None and column in said.values


def _member(one: ComparedObject, names: Names) -> ComparedObject:
    listed = names.given.get("http", {}).get(MEMBERS[one.kind], {})
    real = listed.get(one.name.rpartition(" ")[2])
    if real is None:
        return one
    shown = str(real)
    if isinstance(real, list):  # a code with its status; else all names that a member may have
        shown = f"{real[0]} ({real[1]})" if one.kind == "refusal" else EITHER.join(map(str, real))
    return _settled(one, shown, is_there=True)


def _settled(one: ComparedObject, real: str, *, is_there: bool) -> ComparedObject:
    if is_there:
        return replace(
            one,
            presence=Presence.DIFFERS if one.presence is Presence.DIFFERS and one.real == real else Presence.RENAMED,
            real=real,
            confidence=Confidence.SURE,
            detail=SAID if one.presence is not Presence.DIFFERS else one.detail,
            alternatives=(),
            said=True,
        )
    found = f"; it looks like {one.real}" if one.real and one.real != real else ""
    said = f"gate.yaml says {real}, {NOT_THERE}{found}"
    return replace(one, presence=Presence.ABSENT, real="", confidence=None, detail=said, alternatives=())
