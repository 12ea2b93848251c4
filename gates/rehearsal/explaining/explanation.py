"""Explains why a statement cannot run, what to do, and whether an earlier one caused it. A missing name is traced
through the history: never created, created later, dropped, or renamed.
"""

import difflib
import re
from collections.abc import Sequence

from gates.rehearsal.explaining.failures import Failure
from gates.rehearsal.explaining.history import SchemaEvent
from gates.rehearsal.explaining.names import MissingName, is_made_by, makes, missing_name
from gates.rehearsal.explaining.remedies import Surroundings, told_of
from gates.rehearsal.obstacles import Obstacle, ObstacleKind, Told, at
from gates.rehearsal.postgres.presets import OF_SUPABASE, SUPABASE
from gates.rehearsal.reading.plpgsql import body_span
from gates.text.characters import one_line

LONGEST_SHOWN, LONGEST_SAID = 160, 400
MOST_COLUMNS = 12
LEAST_LIKENESS = 0.5


def explain(failures: Sequence[Failure], around: Surroundings) -> tuple[Obstacle, ...]:
    """One obstacle per failure, in the order of the statements."""
    missing = [missing_name(f.message) for f in failures]
    names = [makes(f.statement) for f in failures]
    found: list[Obstacle] = []
    for index, failure in enumerate(failures):
        told = (
            _follows(missing[index], names[:index], found)
            or _misses_the_same(missing[index], missing[:index], found)
            or _told(failure, failures, names, around)
        )
        found.append(obstacle(failure, told))
    return tuple(found)


def obstacle(failure: Failure, told: Told) -> Obstacle:
    """The failure for people, at the most exact known place."""
    offsets = (failure.offset, told.offset, _inner_place(failure), _named_place(failure), 0)
    return Obstacle(
        failure.statement.place(next(o for o in offsets if o is not None)),
        told.kind,
        failure.code,
        one_line(". ".join(filter(None, (failure.message.rstrip("."), failure.detail))), LONGEST_SAID),
        re.sub("^the ", "The ", told.meaning),
        told.remedy,
        one_line(failure.statement.text, LONGEST_SHOWN),
        told.caused_by,
    )


def _follows(
    missing: MissingName | None, names: Sequence[frozenset[MissingName]], earlier: Sequence[Obstacle]
) -> Told | None:
    """Whether an earlier failed statement would have created what is missing. The first of a chain is the cause."""
    for made, cause in zip(reversed(names), reversed(earlier), strict=True):
        if missing and any(is_made_by(missing, one) for one in made):
            what = f"{_what(missing)} would have been made at {at(cause.place)}, which cannot run itself"
            return Told(
                what, "Mend that one first", kind=ObstacleKind.FOLLOWS, caused_by=cause.caused_by or cause.place
            )
    return None


def _misses_the_same(
    missing: MissingName | None, others: Sequence[MissingName | None], earlier: Sequence[Obstacle]
) -> Told | None:
    """Whether an earlier statement misses the same thing. Columns are reported one by one: each may be another one."""
    if missing is None or missing.kind in {"column", "alias"}:
        return None
    for other, first in zip(others, earlier, strict=True):
        if other and other == missing and other.word == missing.word and first.kind is not ObstacleKind.FOLLOWS:
            return Told(f"needs {_what(missing)}, too", first.remedy, kind=ObstacleKind.FOLLOWS, caused_by=first.place)
    return None


def _told(
    failure: Failure, failures: Sequence[Failure], names: Sequence[frozenset[MissingName]], around: Surroundings
) -> Told:
    missing = missing_name(failure.message)
    if missing is None or failure.limit or failure.code == "42501":
        return told_of(failure, around)
    for other, made in zip(failures, names, strict=True):
        if other.number > failure.number and any(is_made_by(missing, one) for one in made):
            where = f"{at(other.statement.place())}, which cannot run either"
            return Told(f"{_what(missing)} is made only later, at {where}", "Mend that one, and move it before this")
    return _missing(failure, missing, around)


# --- names that are not there ------------------------------------------------------------------------------------


def _missing(failure: Failure, missing: MissingName, around: Surroundings) -> Told:
    name, kind, history = missing.name, missing.kind, around.history
    if kind == "column":
        return _column(failure, missing, around)
    if told := _traced(history.of(kind, name), failure.number, _what(MissingName(kind, name, word=missing.word))):
        return told
    if kind == "alias":
        return Told(f"No table of this statement is called {name}", "Name the table or its alias in FROM")
    if kind == "extension":
        what = f"The extension {name} is not among those of the rehearsal's server, and no stub stands for it"
        do = "See that your server has it. What stands on it is not judged here"
        return Told(what, do, kind=ObstacleKind.NOT_JUDGED)
    if kind == "function" and (told := _other_arguments(failure, missing, around)):
        return told
    if schemas := [s for s in history.schemas_with(kind, name) if s and s != missing.schema]:
        what = f"{name} is in the schema {schemas[0]}, and this statement does not look there"
        return Told(what, f"Write {schemas[0]}.{name}")
    do = _what_to_add(missing, around)
    absent = [e for e, wanted in around.absent.items() if wanted < failure.number]
    if absent and kind in {"type", "function", "other"} and do.startswith("Add the migration"):
        what = f"{_what(missing)} may come with the extension {' or '.join(absent)}, which is not here"
        return Told(
            what, "See that your server has the extension, and that this comes with it", kind=ObstacleKind.NOT_JUDGED
        )
    return Told(f"No migration makes {_what(missing)}", do)


def absent_extensions(failures: Sequence[Failure]) -> dict[str, int]:
    """The extensions that the server lacks, each with the number of the first statement that needs it."""
    found = dict[str, int]()
    for failure in failures:
        if (missing := missing_name(failure.message)) and missing.kind == "extension":
            found.setdefault(missing.name, failure.number)
    return found


def _what_to_add(missing: MissingName, around: Surroundings) -> str:
    names = around.history.names(missing.kind) if missing.word != "index" else []
    near = next((n for n in names if n.lower() == missing.name.lower()), "") or nearest(missing.name, names)
    if missing.kind == "function" and not near:
        near = next(iter(difflib.get_close_matches(missing.name, around.built_in, 1, 0.8)), "")
    do = f"Did you mean {near}?" if near else "Add the migration that makes it, before this statement"
    if near != missing.name and near.lower() == missing.name.lower():
        do = f'Write "{near}" in double quotes: without them, PostgreSQL makes all letters small'
    if missing.kind == "part":
        do = "Correct the name, or write IF EXISTS where it need not be there"
    elif missing.kind == "role":
        do = f"Make it in a migration; or, where your platform makes it, give --role {missing.name}"
    elif missing.kind == "schema":
        do = "Add CREATE SCHEMA before this statement"
    elif home := _HOMES.get(missing.name):
        do = f"It comes with an extension: add CREATE EXTENSION {home} before this statement"
    platform = next((n for n in (missing.schema, missing.name) if n in OF_SUPABASE), None)
    if platform and around.preset != SUPABASE:
        return f"{platform} is Supabase's: give --preset supabase. Elsewhere: {do[0].lower()}{do[1:]}"
    return do


def _column(failure: Failure, missing: MissingName, around: Surroundings) -> Told:
    history, name = around.history, missing.name
    relations = relations_of(_words(failure), missing.of, around)
    events = history.of("column", name, relations)
    if told := _traced(events, failure.number, f"the column {name}"):
        return told
    homes = sorted(relations)
    columns = [c for r in homes for c in history.columns(r)]
    what = f"No migration makes a column {name}" + (f" in {' or '.join(homes)}" if homes else "")
    if near := nearest(name, columns):
        home = next(r for r in homes if near in history.columns(r))
        return Told(f"{what}; the nearest is {home}.{near}", f"Write {near}, or add the column before this statement")
    if columns:
        what += f", which has {', '.join(columns[:MOST_COLUMNS])}" + ", ..." * (len(columns) > MOST_COLUMNS)
    return Told(what, "Add the column before this statement, or correct the name")


def _words(failure: Failure) -> tuple[str, ...]:
    """The words of the statement, or of the query in its body that failed."""
    if failure.inner_query:
        return tuple(w.strip('"') for w in re.findall(r"\w+|\"[^\"]+\"", failure.inner_query.lower()))
    return failure.statement.plain


def relations_of(words: Sequence[str], alias: str, around: Surroundings) -> frozenset[str]:
    """The relations in a statement; for an alias, the relation behind it."""
    known = {e.entry.name for e in around.history.events if e.entry.kind == "relation"}
    known |= set(around.history.names("relation"))
    if alias in known:
        return frozenset({alias})
    if alias:
        for index, word in enumerate(words[1:], 1):
            before = words[index - 2] if words[index - 1] == "as" and index > 1 else words[index - 1]
            if word == alias and before in known:
                return frozenset({before})
    return frozenset(w for w in words if w in known)


def _other_arguments(failure: Failure, missing: MissingName, around: Surroundings) -> Told | None:
    own = [e for e in around.history.present.values() if e.kind == "function" and e.name == missing.name]
    built_in = around.built_in.get(missing.name, ()) if missing.schema in {"", "pg_catalog"} else ()
    given = failure.message.partition("(")[2].rpartition(")")[0]
    takes = [f"{e.schema}.{e.name}({e.of})" for e in own] + [f"{missing.name}({of})" for of in built_in]
    if not takes:
        return None
    shown = "; ".join(sorted(takes, key=lambda one: one.count(",") != given.count(","))[:3])
    what = f"{missing.name} is there, but not for ({given}): there is {shown}"
    return Told(what, "Cast the arguments to these types" + ", or name the schema" * bool(own))


def _traced(events: Sequence[SchemaEvent], number: int, what: str) -> Told | None:
    """What the history says of a name that a statement misses."""
    later = next((e for e in events if e.number > number and e.verb == "makes"), None)
    before = next((e for e in reversed(events) if e.number < number and e.verb in {"drops", "renames"}), None)
    of = f" of {(later or before).entry.of}" if (later or before) and what.startswith("the column") else ""  # type: ignore[union-attr]
    if before and before.verb == "renames":
        new = before.now.rpartition(".")[2] if before.entry.kind == "column" else before.now
        return Told(f"{what}{of} was renamed to {new} at {at(before.statement.place())}", f"Write {new}")
    if later:
        do = "Move that statement before this one; files run in the order of their names"
        return Told(f"{what}{of} is made only later, at {at(later.statement.place())}", do)
    if before and before.statement.verb in _UNDO:
        do = "See that the statement which makes it is committed"
        return Told(f"{what}{of} was undone by the transaction at {at(before.statement.place())}", do)
    if before:
        do = "Take it out of this statement, or drop it later"
        return Told(f"{what}{of} was dropped at {at(before.statement.place())}", do)
    return None


_UNDO = {"rollback", "abort", "begin", "start"}


def _what(missing: MissingName) -> str:
    kind = missing.word or {"relation": "table or view", "other": "object"}.get(missing.kind, missing.kind)
    of = f" of {missing.of}" if missing.of and missing.kind in {"column", "part"} else ""
    return f"the {kind} {missing.schema + '.' if missing.schema else ''}{missing.name}{of}"


def nearest(name: str, names: Sequence[str]) -> str:
    """The most similar name, by letters or by its words, or nothing if none is similar."""
    near, best = max(((_likeness(name, n), n) for n in names), default=(0.0, ""))
    return best if near >= LEAST_LIKENESS else ""


def _likeness(one: str, other: str) -> float:
    letters = difflib.SequenceMatcher(None, one, other).ratio()
    mine, theirs = ({w.rstrip("s") for w in n.split("_")} - {"id", "at", "i", "by"} for n in (one, other))
    words = len(mine & theirs) / len(mine | theirs) if mine & theirs else 0.0
    return max(letters if letters >= 0.7 else 0.0, words)


_HOMES = {
    "uuid_generate_v4": '"uuid-ossp"',
    **dict.fromkeys(("gen_salt", "crypt", "digest", "hmac", "gen_random_bytes", "pgp_sym_encrypt"), "pgcrypto"),
    "similarity": "pg_trgm",
    "gin_trgm_ops": "pg_trgm",
    "unaccent": "unaccent",
    "citext": "citext",
    "hstore": "hstore",
    "vector": "vector",
}


# --- where it is -------------------------------------------------------------------------------------------------


def _named_place(failure: Failure) -> int | None:
    """The place in the statement of a name in the message, including its schema."""
    missing = missing_name(failure.message)
    quoted = [*([missing.name] if missing else []), *re.findall(r'"([^"]+)"', failure.message)]
    words = failure.statement.words
    for name in (n for q in quoted for n in (q.rpartition(".")[2], q)):
        for index, word in enumerate(words):
            if word.text == name:
                first = words[index - 2] if index > 1 and words[index - 1].text == "." else word
                return first.start - failure.statement.start
    return None


def _inner_place(failure: Failure) -> int | None:
    """The place of an error inside a body, by the failed query or by the line that the server gives."""
    span = body_span(failure.statement)
    if span is None or not failure.context:
        return None
    text, start = failure.statement.text, span[0]
    if failure.inner_query:
        return place_in_body(text, start, failure.inner_query, failure.inner_offset)
    line = re.search(r"inline_code_block line (\d+)", failure.context)
    return line_of_body(text, start, int(line[1])) if line else None


def place_in_body(text: str, start: int, query: str, at: int | None) -> int | None:
    """A position of a query of a body in the text, from `start` on; None if the query is not found. PL/pgSQL blanks
    INTO and its targets in the query, and turns PERFORM into SELECT.
    """
    moved = 0
    if query.startswith("SELECT ") and "perform" in text[start:].lower():
        query, moved = query.removeprefix("SELECT "), len("SELECT ")
    first = query.split()[:1]
    found = text.find(first[0], start) if first else -1
    while found >= 0:
        segment = text[found : found + len(query)]
        if len(segment) == len(query) and all(
            q in {t, " "} or q.isspace() for q, t in zip(query, segment, strict=True)
        ):
            return found + max((at or 0) - moved, 0)
        found = text.find(first[0], found + 1)
    return None


def line_of_body(text: str, start: int, line: int) -> int:
    """Where a line of a body (from 1) begins in the text, after its indentation."""
    for _ in range(line - 1):
        start = text.find("\n", start) + 1 or len(text)
    return start + len(text[start:]) - len(text[start:].lstrip(" \t"))
