"""A rate limit with a row for each call, or for several: `calls` of `names:`, as data. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gates.contract.queues import identifier

MOST_CALLS = 1000
"""The most calls of one row that are looked at, if it counts several."""


@dataclass(frozen=True, slots=True)
class LimitCalls:
    """A rate limit with a row for each call, or for several. All are real columns except `time`. time: SQL of when.
    number: of how many calls, empty: of one. company, address: of whom, if no column has both.
    """

    time: str
    number: str = ""
    company: str = ""
    address: str = ""


def spelled_out(given: Mapping[str, Any], ids: Mapping[str, str]) -> Mapping[str, Any]:
    """The names of a table, with the columns that `calls` defines."""
    if "calls" not in given:
        return given
    return {**given, "columns": {**given.get("columns", {}), **_of_calls(given["calls"], ids.get("company", "uuid"))}}


def calls_of(given: Mapping[str, Any]) -> LimitCalls:
    at = given["at"]
    time = identifier(at) if isinstance(at, str) else f"({at['sql']})"
    return LimitCalls(time, *(str(given.get(part, "")) for part in ("number", "company", "address")))


def _of_calls(given: Mapping[str, Any], id_type: str) -> dict[str, Any]:
    """What `columns` would say of a limit whose row is one call, or several: each row is a group of its own."""
    calls, at = calls_of(given), given["at"]
    times = f"array[{calls.time}]"
    if calls.number:
        times = f"array_fill({calls.time}, array[least({identifier(calls.number)}, {MOST_CALLS})::int])"
    first = "(({})::timestamptz[])[1]"
    written = first if isinstance(at, str) else str(at.get("write", "{}")).replace("{}", first)
    said: dict[str, Any] = {
        "hits": {"is": at if isinstance(at, str) else at.get("is", "hits"), "sql": f"{times}::timestamptz[]"},
        "count": {"sql": identifier(calls.number) if calls.number else "1"},
        "window_start": {"sql": calls.time},
    }
    if isinstance(at, str) or "write" in at:
        said["hits"]["write"] = written
    if calls.company:
        whose = ", ':', ".join(identifier(name) for name in (calls.company, calls.address) if name)
        key = f"concat('replay:', {whose})" if calls.address else f"concat('replay:', {whose}, ':')"
        said["key"] = {"is": calls.company, "sql": key, "write": f"split_part({{}}, ':', 2)::{id_type}"}
    return said
