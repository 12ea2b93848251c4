"""The meaning of server errors other than missing names, and what to do."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gates.rehearsal.explaining.failures import LEFT_OPEN, UNREAD, Failure
from gates.rehearsal.explaining.history import SchemaHistory
from gates.rehearsal.obstacles import ObstacleKind, Told, at
from gates.rehearsal.postgres.presets import OF_SUPABASE, SUPABASE

_CLOSED = {"auth", "storage", "realtime", "vault"}
_DOORS = (
    *("program", "pg_read_file", "pg_read_binary_file", "pg_ls_dir", "lo_import", "lo_export", "dblink", "system"),
    *("postgres_fdw", "file_fdw", "to or from a file", "subscription", "language c", "plpython3u", "plperlu"),
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a remedy depends on besides the error.

    `volatile`: functions that are not immutable, by name. `built_in`: the server's own functions, each with its lists
    of arguments. `absent`: extensions that the rehearsal's server lacks, with the number of the first statement that
    needs each.
    """

    history: SchemaHistory
    preset: str
    volatile: frozenset[str] = frozenset()
    built_in: Mapping[str, Sequence[str]] = field(default_factory=dict)
    absent: Mapping[str, int] = field(default_factory=dict)


def told_of(failure: Failure, around: Surroundings) -> Told:
    """The meaning and the remedy of an error."""
    if failure.limit:
        do = "Try it by hand, with the values and on a table of the size that you have"
        return Told(f"It could not be judged: {failure.limit}", do, kind=ObstacleKind.NOT_JUDGED)
    special = _SPECIAL.get(failure.code)
    if special:
        return special(failure, around)
    general = _GENERAL.get(failure.code) or _GENERAL.get(failure.code[:2])
    meaning, remedy = general or ("The server refuses this statement", "Correct the statement")
    return Told(meaning, f"{remedy}. {failure.hint}" if failure.hint else remedy)


def _privilege(failure: Failure, around: Surroundings) -> Told:
    words, said = failure.statement.plain, failure.message.lower()
    door = next((d for d in _DOORS if d in words or re.search(rf"\b{d}\b", said)), None)
    if door or "external program" in said:
        return Told(
            "It reaches beyond the database, to files, programs or other servers; the rehearsal lets nothing do so",
            "Take it out of the migrations, or run it by hand where it belongs",
            failure.statement.find(door) if door else None,
            ObstacleKind.REFUSED,
        )
    closed = re.search(r"permission denied for schema (\w+)", failure.message)
    if closed and around.preset == SUPABASE and closed[1] in _CLOSED:
        what = f"Supabase keeps the schema {closed[1]} to itself: migrations cannot make anything in it"
        return Told(what, "Make it in public or in a schema of your own")
    if closed and {*words} & {"owner", "do"}:
        return Told(
            f"A new owner needs CREATE on the schema {closed[1]}, unless a superuser names it",
            f"GRANT CREATE ON SCHEMA {closed[1]} to it before. What stands on it is not judged here",
            kind=ObstacleKind.NOT_JUDGED,
        )
    return Told(
        "It needs a superuser, or an owner that the migrations are not. The rehearsal runs them as a role that owns "
        "the database and may make roles, as hosted platforms do",
        "See that whoever deploys has this right. What stands on it is not judged here",
        kind=ObstacleKind.NOT_JUDGED,
    )


def _immutable(failure: Failure, around: Surroundings) -> Told:
    statement, predicate = failure.statement, "predicate" in failure.message
    start = (statement.find("where") or 0) if predicate else 0
    places = [(w.text, w.start - statement.start) for w in statement.words]
    found = [(text, offset) for text, offset in places if text in around.volatile and offset >= start]
    name, offset = found[0] if found else ("A function", start or None)
    if predicate:
        return Told(
            f"{name}() gives another answer later, but an index decides once, on writing a row, if it holds it",
            "Leave it out of the index: index the column, and compare it with the time in the query",
            offset,
        )
    return Told(
        f"{name} can give another answer later, but an index or a generated column keeps the first one",
        "Use functions that are IMMUTABLE; for a timestamptz say the zone: (at AT TIME ZONE 'UTC')::date",
        offset,
    )


def _operator(failure: Failure, _around: Surroundings) -> Told:
    found = re.search(r"operator does not exist: (.+?) (\S+) (.+)", failure.message)
    if found is None:
        return Told("There is nothing of that name for these types", failure.hint or "Cast the arguments")
    left, sign, right = found.groups()
    to = right if left in {"text", "character varying"} else left
    return Told(
        f"There is no {sign} between {left} and {right}: PostgreSQL converts neither to the other",
        f"Give both sides one type: declare both columns alike, or cast one side to {to} (::{to})",
    )


def _duplicate(failure: Failure, around: Surroundings) -> Told:
    quoted = re.findall(r'"([^"]+)"', failure.message) or re.findall(r"function ([\w.]+)", failure.message)
    name = quoted[0].rpartition(".")[2] if quoted else ""
    column = failure.code == "42701"
    of = frozenset(quoted[1:2]) if column else frozenset[str]()
    kinds = ("column",) if column else ("relation", "type", "function", "schema", "role")
    events = [e for kind in kinds for e in around.history.of(kind, name, of)]
    first = next((e for e in events if e.verb == "makes" and e.number < failure.number), None)
    by = f"at {at(first.statement.place())}" if first else "before"
    if first is None and name in OF_SUPABASE and around.preset == SUPABASE:
        by = "by the platform (preset supabase)"
    do = "Drop one of the two; or write IF NOT EXISTS (OR REPLACE for functions and views) where both mean the same"
    return Told(f"{name or 'It'} is there already: it was made {by}", do)


def _in_transaction(failure: Failure, around: Surroundings) -> Told:
    what = failure.message.partition(" cannot")[0]
    do = "Move it out of BEGIN ... COMMIT, into a file of its own; tell your migration tool not to wrap that file"
    if around.preset == SUPABASE:
        do = "Give it a file of its own without BEGIN; if the tool still wraps it, run it by hand before the deploy"
    return Told(f"{what} cannot run inside a transaction, and here it is in one", do)


def _copy_rows(failure: Failure, _around: Surroundings) -> Told:
    if failure.statement.verb == "copy":
        return Told("The rows of this COPY do not fit its table", "Correct the rows, or the columns of the COPY")
    return Told("A value does not fit", "Correct the value")


def _syntax(failure: Failure, _around: Surroundings) -> Told:
    if "syntax error" in failure.message or "trailing junk" in failure.message:
        return Told("It is not SQL as this version of PostgreSQL reads it", "Correct the grammar at this place")
    return Told("The parts of the statement do not fit together", "Correct it at this place")


def _unsupported(failure: Failure, _around: Surroundings) -> Told:
    if "to be built with" in failure.detail or "lz4" in failure.message:
        what = "The rehearsal's server was built without it; yours may have it"
        do = "See that your server has it. What stands on it is not judged here"
        return Told(what, do, kind=ObstacleKind.NOT_JUDGED)
    return Told("PostgreSQL cannot do this in this form", "Say it otherwise")


def _value(failure: Failure, around: Surroundings) -> Told:
    return _unsupported(failure, around) if "compression" in failure.message else Told(*_GENERAL["22"])


def _conflict(failure: Failure, _around: Surroundings) -> Told:
    if "ON CONFLICT" in failure.message:
        do = "Add a UNIQUE constraint on exactly these columns"
        return Told("No unique index or constraint fits the ON CONFLICT", do)
    return Told("The parts of the statement do not fit together", "Correct it at this place")


def _undefined(failure: Failure, _around: Surroundings) -> Told:
    if "configuration parameter" in failure.message:
        do = "Take it out, or give --server-version of your server"
        return Told("This version of PostgreSQL has no setting of this name", do)
    none = re.search(r"data type (.+) has no default operator class for access method \"(gist|gin)\"", failure.message)
    if none:
        what = f"{none[1]} cannot be indexed by {none[2]} without an extension"
        return Told(what, f"Add CREATE EXTENSION btree_{none[2]} before this statement; for a text search, pg_trgm")
    meaning, remedy = _GENERAL["42"]
    return Told(meaning, f"{remedy}. {failure.hint}".rstrip(". "))


def _unread(_failure: Failure, _around: Surroundings) -> Told:
    what = "The names in this body could not be looked at: it cannot be taken apart"
    do = "Call it once by hand before the deploy; a body in dollar quotes, and plain types, can be looked at"
    return Told(what, do, kind=ObstacleKind.NOT_JUDGED)


_SPECIAL: dict[str, Callable[[Failure, Surroundings], Told]] = {
    "42501": _privilege,
    "42601": _syntax,
    "42704": _undefined,
    "42P10": _conflict,
    "22023": _value,
    "0A000": _unsupported,
    UNREAD: _unread,
    "42P17": _immutable,
    "42883": _operator,
    **dict.fromkeys(("42P07", "42701", "42710", "42723", "42P06"), _duplicate),
    "25001": _in_transaction,
    "22P04": _copy_rows,
}
_GENERAL = {
    LEFT_OPEN: (
        "This transaction has no COMMIT in its file: what stands behind it is undone when the session ends",
        "Write COMMIT at the end of the file, or leave BEGIN out",
    ),
    "42830": ("The referenced columns have no UNIQUE constraint or primary key", "Add one to that table first"),
    "42804": ("The types do not fit together", "Cast the value, or change one of the types"),
    "42702": ("The name could mean two columns", "Put the table's name or alias before it"),
    "22P02": ("The text is no value of this type; a placeholder, perhaps", "Write a value of the type"),
    "55P04": (
        "A new value of an enum cannot be used in the transaction that adds it",
        "Add the value in a migration of its own, before the one that uses it",
    ),
    "2BP01": ("Other objects stand on it", "Drop those first, or say CASCADE if they are to go, too"),
    "P0001": ("The migration itself raises this error", "See to what it says"),
    "42P13": ("The function contradicts itself or its older version", "Drop the older function first"),
    "42P16": ("The table or view contradicts itself or its older version", "Drop the older one first"),
    "23": ("The rows that the migrations write break a constraint", "Correct the rows or the order of the statements"),
    "22": ("A value does not fit", "Correct the value"),
    "42": ("The statement does not fit the schema as it is here", "Correct it, or what comes before it"),
    "57": ("The server ended the statement", "Make it smaller"),
    "53": ("The statement needs more than the rehearsal allows", "Make it smaller"),
    "08": ("The server ended the session at this statement", "Run it by hand to see what it does"),
}
