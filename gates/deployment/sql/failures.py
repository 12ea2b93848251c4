"""Describes a database error for whoever runs the deployment: what is absent or differs, which function failed.
Messages contain no SQL text and no class name of the driver: neither says what to do.
"""

import re
from io import StringIO
from itertools import islice

import psycopg

from gates.contract.contract import contract
from gates.errors import MOST_SAID, first_line

FUNCTIONS = (
    re.compile(r'PL/[A-Za-z]++(?:-\S++ |関数|函数| 함수 "| (?:\S++ )?)((?:[^\s("]|"[^"]*+")++\([^()]*+\))'),
    re.compile(r'SQL function "([^"]++)"'),
)
"""How a context names the running function, the innermost one first; in languages of the server. Reading takes time in
proportion to the length of the text.
"""
MOST_LINES, MOST_LINE = 100, 1_000
"""How much of a context is read, which quotes whole statements: lines, and characters of each."""

OURS = "inline_code_block"
QUOTED = re.compile(r"[\"«„“»]\s?([^\"«»„“”]*[^\"«»„“”\s])\s?[\"»“”«]")
DOTTED = re.compile(r"(?<![\w$])([\w$]++(?:\.[\w$]++)++)")
CALLED = re.compile(r"(?<![\w$.\"])(?:関数|函数)?([\w$.\"]++\([^()]*+\))")

SCHEMA, TABLE, COLUMN, CALL, OBJECT = "3F000", "42P01", "42703", "42883", "42704"
TYPES = {"42804", "42846", "42P18", "22P02", "22007", "22008", "22003", "42P08", "42725"}
"""A value or a column has another type than in the contract."""
DOCUMENT = re.compile(r"\bjsonb?\b")
"""No id is JSON: a policy or function reads claims that are not there."""

VALUE, REFERRED = "22P02", "23503"
RIGHTS, LATE, LOCKED = "42501", "57014", "55P03"
CUT_OFF = "the database cut our connection, as in a restart or a failover"
ENDED = {"57P01", "57P02"}  # by an administrator, or because another session crashed
CUT = re.compile(
    "closed the connection unexpectedly|connection has been closed unexpectedly|reset by peer|connection is lost"
)
EXPLAINED = ("connection to server", "a pooler is between")
"""Words of messages that say better than CUT_OFF why there is no connection."""
STANDBY, EACH_HOST = "server is in hot standby mode", "\n- host: "
"""What libpq says where a primary is asked for, and what psycopg begins the failure of each host with."""
FULL = re.compile("too many (?:connections|clients)|remaining connection slots|no more connections allowed")
ROOM = "a login with 20 connections of its own is enough"


def in_words(error: BaseException) -> str:
    """One line, which begins with `absent`, `differs`, or `failed inside your function` if it is one of these."""
    diagnosis = error.diag if isinstance(error, psycopg.Error) else None
    if diagnosis is None or not diagnosis.message_primary:
        said = first_line(error)
        if STANDBY in str(error):
            hosts = str(error).split(EACH_HOST)[1:] or [said]
            standbys = sum(STANDBY in host for host in hosts)
            others = "" if standbys == len(hosts) else f", and no other of the {len(hosts)} hosts can be reached"
            return f"DATABASE_URL leads to no primary: standbys, which only read: {standbys}{others}. Name the primary"
        is_told = any(words in said for words in EXPLAINED)
        was_open = isinstance(error, psycopg.OperationalError) and CUT.search(said) and not is_told
        return CUT_OFF if was_open else f"{said}: {ROOM}" if FULL.search(said) else said
    state = diagnosis.sqlstate or ""
    return told_in_words(diagnosis.message_primary, state, diagnosis.context or "") if state else first_line(error)


def told_in_words(message: str, state: str, context: str) -> str:
    """The same for an error that the server caught itself: its message, its SQLSTATE, and where it happened."""
    said = " ".join(message[:MOST_SAID].split())
    function = _function(context)
    if function and state not in {LATE, LOCKED}:  # these end whatever runs: they are no mistake of the function
        return f"failed inside your function {function}: {said}"
    said += f", inside your function {function}" * bool(function)
    if state in {SCHEMA, TABLE, COLUMN, CALL, OBJECT}:
        return _absent(state, said)
    if state == VALUE and re.search(r"\benum\b", said, re.IGNORECASE):
        entry = "{tables: {TABLE: {values: {COLUMN: {CONTRACT: REAL}}}}}"
        return f"differs: {said}. If that value has another name here, say so: names: {entry} in gate.yaml"
    if state == REFERRED:
        entry = "{own_tables: {SCHEMA.TABLE: COLUMN}}"
        return (
            f"the database refused it: {said}. If that table holds rows of tenants and is not the contract's,"
            f" list it with its column of the tenant: names: {entry} in gate.yaml"
        )
    if state in TYPES and not DOCUMENT.search(said):
        return f"differs: {said}. If ids are of another type here, say so: names: {{ids: ...}} in gate.yaml"
    if state == RIGHTS:
        return (
            f"this login may not do that: {said}. `gate doctor --grants` prints the rights that a gate's login needs,"
            " those of deep drills as comments at its end"
        )
    if state in ENDED:
        return CUT_OFF
    if state == LATE:
        return f"the database did not finish in time: {said}"
    if state == LOCKED:
        return f"another session held a lock for too long: {said}"
    return f"the database refused it: {said} (SQLSTATE {state})"


def _function(context: str) -> str:
    lines = (line[:MOST_LINE] for line in islice(StringIO(context), MOST_LINES))
    found = (pattern.search(line) for line in lines for pattern in FUNCTIONS)
    return next((m[1] for m in found if m and not m[1].startswith(OURS)), "")


def _absent(state: str, said: str) -> str:
    quoted = QUOTED.findall(said)
    dotted = DOTTED.search(said)
    called = CALLED.search(said)
    if state == CALL and not called:  # an operator between two types
        return f"differs: {said}. If ids are of another type here, say so: names: {{ids: ...}} in gate.yaml"
    name = called[1] if state == CALL and called else quoted[0] if quoted else dotted[1] if dotted else said
    kind = {SCHEMA: "schema", TABLE: "table or view", COLUMN: "column", CALL: "function", OBJECT: "object"}[state]
    of = f" of {quoted[1]}" if state == COLUMN and len(quoted) > 1 else ""
    return f"absent: there is no {kind} {name}{of}. {_mapping(state, name)}"


def _mapping(state: str, name: str) -> str:
    """The hint on how the policy says what an object of the contract is called here."""
    bare = name.partition("(")[0].replace('"', "").split(".")[-1]
    columns = {column for relation in contract().relations.values() for column in relation.columns}
    entry = {
        TABLE: f"{{tables: {{{bare}: {{is: SCHEMA.NAME}}}}}}" * (bare in contract().relations),
        COLUMN: f"{{tables: {{TABLE: {{columns: {{{bare}: NAME}}}}}}}}" * (bare in columns),
        CALL: f"{{functions: {{{bare}: {{is: SCHEMA.NAME}}}}}}" * (bare in contract().functions),
        OBJECT: f"{{roles: {{{bare}: NAME}}}}" * (bare in contract().roles),
    }.get(state, "")
    if not entry:
        return "See that it is there, and what `names` in gate.yaml says of it"
    return f"If it has another name here, say so in gate.yaml: names: {entry}"
