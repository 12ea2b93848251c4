"""How a deployment stores its rate limit. The contract's has a row for each key `replay:<company>:<ip>`. Pure."""

import ipaddress
import re
from collections.abc import Iterator, Mapping

from gates.deployment.dialect.tokens import literal
from gates.doctor.reading.schema import SchemaColumn, SchemaTable
from gates.doctor.sqltypes import WHOLES, bare, id_type
from gates.doctor.words import synonyms, words

LimitForm = tuple[str, str]
"""The prefix of a key, and the separator between the company and the address at its end."""
CONTRACT_FORM: LimitForm = ("replay:", ":")
TIMES = ("timestamp with time zone", "timestamp without time zone")
NOT_OF_CALLS = frozenset(words("expires expire until updated deleted reset next"))
"""Words of times that do not mean when a call was made."""
ADDRESSES = frozenset(words("ip address addr client remote peer origin host"))
NUMBERS = frozenset(words("count hits calls requests number n total used tally counter"))
LIMITING = frozenset(words("rate limit throttle hit call"))
"""Words of a table that counts calls."""
_INTERVAL = re.compile(
    r"interval\s+'(\d{1,5})\s*(s|sec|second|min|minute|hour)s?'|\b(secs|mins|hours)\s*=>\s*(\d{1,5})\b", re.IGNORECASE
)
_CALLS = re.compile(r"(?:>=|<)\s*(\d{1,3})\b")
SECONDS = {"s": 1, "h": 3600, "m": 60}
_JOINT = re.compile(r"[:|/#]")


def form_of(key: str) -> LimitForm | None:
    """The form of one key; None if it does not end in an address."""
    for at in [m.end() for m in _JOINT.finditer(key)]:
        try:
            ipaddress.ip_address(key[at:])
        except ValueError:
            continue
        before, joint = key[: at - 1], key[at - 1]
        return before[: before.rfind(joint) + 1], joint
    return None


def expressions(form: LimitForm, column: str) -> tuple[str, str]:
    """SQL of the contract's key over a column, and SQL of the column's value for the contract's key `{}`."""
    begin, joint = form
    read, write = f"substr({column}, {len(begin) + 1})", f"substr({{}}, {len(CONTRACT_FORM[0]) + 1})"
    if joint != ":":
        read, write = f"regexp_replace({read}, '[{joint}]', ':')", f"regexp_replace({write}, ':', '{joint}')"
    return f"{literal(CONTRACT_FORM[0])} || {read}", f"{literal(begin)} || {write}"


def calls_of(table: SchemaTable, companies: str, tenant: str) -> dict[str, str]:
    """`calls` of names for a table whose row is one call, or several: empty if it is none. companies: the qualified
    table of tenants. tenant: other tables' name of their tenant column. Either may be empty.
    """
    columns = table.columns.values()
    own = {c for k in table.keys if k.is_primary and len(k.columns) == 1 for c in k.columns}
    times = [c.name for c in columns if bare(c.type) in TIMES and not set(words(c.name)) & NOT_OF_CALLS]
    whose = [c.name for c in columns if _is_tenant(c, companies, tenant)]
    whence = [c for c in columns if c.name not in whose and (bare(c.type) in {"inet", "cidr"} or _is_address(c))]
    if len(times) != 1 or len(whose) != 1 or len(whence) > 1 or any(c.type.endswith("[]") for c in columns):
        return {}
    found = {"at": times[0], "company": whose[0]}
    if whence:
        found["address"] = whence[0].name
    numbers = [c.name for c in columns if bare(c.type) in WHOLES and c.name not in own and set(words(c.name)) & NUMBERS]
    return {**found, "number": numbers[0]} if len(numbers) == 1 else found


def _is_tenant(column: SchemaColumn, companies: str, tenant: str) -> bool:
    if column.references or tenant:
        return column.references == companies if column.references else column.name == tenant
    return words(column.name) in synonyms().spellings("columns", "company_id")


def _is_address(column: SchemaColumn) -> bool:
    return id_type(column.type) == "text" and bool(set(words(column.name)) & ADDRESSES)


def limits_in(sources: Mapping[str, str]) -> dict[str, tuple[int, str]]:
    """`calls` and `window_s` in the functions that count calls, each with its function; contradictions are left out."""
    said: dict[str, dict[int, str]] = {"calls": {}, "window_s": {}}
    for name, source in sources.items():
        for value in (int(n) for n in _CALLS.findall(source)):
            said["calls"][value] = name
        for value in _windows(source):
            said["window_s"][value] = name
    return {limit: next(iter(found.items())) for limit, found in said.items() if len(found) == 1}


def _windows(source: str) -> Iterator[int]:
    for number, unit, name, value in _INTERVAL.findall(source):
        yield int(number or value) * SECONDS[(unit or name)[0].lower()]
