"""The table part of the draft: `names: tables:`. Pure."""

from gates.doctor.comparison.compare import Presence
from gates.doctor.diagnosis import Diagnosis
from gates.doctor.draft.lines import Lines, alternatives, comment, guess, scalar, titled
from gates.doctor.matching import limit_keys
from gates.doctor.matching.columns import Confidence
from gates.doctor.matching.limit_keys import CONTRACT_FORM
from gates.doctor.matching.soft_deletes import counted_rows
from gates.doctor.matching.tables import TableMatch
from gates.doctor.reading.schema import SchemaColumn, SchemaTable, quoted
from gates.doctor.sqltypes import WHOLES, bare
from gates.doctor.words import words

DERIVED = {
    ("edge_rate_limits", "count"): ("hits", "cardinality({})"),
    ("edge_rate_limits", "window_start"): ("hits", "({})[1]"),
}
"""Columns that can be derived from another one of their table: the other, and how."""
FILLED = {
    "uuid": "gen_random_uuid()",
    "boolean": "false",
    "date": "current_date",
    "character": "''",
    **dict.fromkeys(("timestamp with time zone", "timestamp without time zone"), "now()"),
    **dict.fromkeys(("jsonb", "json"), "'{}'"),
    **dict.fromkeys(("smallint", "integer", "bigint", "numeric"), "0"),
    **dict.fromkeys(("text", "character varying"), "'gate'"),
}
"""Type -> a value for a column unknown to the contract that has no default."""
KINDS_OF_CALLS = frozenset(words("route endpoint path kind action scope limiter operation purpose"))
"""Words of a column that tells several limits apart in one table of calls."""
WRITTEN = (
    *("companies", "edge_rate_limits", "event_outbox", "events", "dead_letter_queue", "feature_flags"),
    *("agent_controls", "agent_tasks"),
)
"""Tables into which the gate inserts rows of its own tenants."""


def placed(schema: str, name: str, home: str) -> str:
    return name if schema == home else f"{schema}.{name}"


def table_lines(found: Diagnosis, name: str, home: str) -> Lines:
    one = found.comparison.tables.get(name)
    if one is None:
        seen = found.comparison.of("table", name) or found.comparison.of("view", name)
        if seen and seen.presence is Presence.UNKNOWN:
            yield f"    # {name}: not seen{comment(seen.detail)}"
        else:
            yield f"    {name}: {{absent: true}}{comment(seen.detail) if seen and not seen.said else ''}"
        return
    real = one.table
    if one.confidence is Confidence.PERHAPS and one.alternatives:
        yield f"    {name}: {{absent: true}}{comment(f'which is it: {real.qualified}', alternatives(one.alternatives))}"
        return
    if "." in real.name or "." in real.schema:
        yield f"    {name}: {{absent: true}}{comment(f'{real.qualified} has a dot in its name, and cannot be named')}"
        return
    parts = [*_columns(found, one), *_calls(one), *_counted(one), *_values(found, one), *_further(one)]
    is_home = real.schema == home and real.name == name
    if not parts and is_home:
        return
    said = comment(f"{one.confidence.word}: {one.reason}", alternatives(one.alternatives))
    if not is_home:
        parts = [f"      is: {scalar(placed(real.schema, real.name, home))}", *parts]
    title = f"    {name}:{'' if one.has_own_name else said}"
    yield from titled(title, parts) or [f"    # {name}:"]
    yield from parts


def _calls(one: TableMatch) -> Lines:
    """A rate limit with a row for each call, or for several."""
    if not one.calls:
        return
    told = ", ".join(f"{part}: {scalar(column)}" for part, column in one.calls.items())
    yield f"      calls: {{{told}}}{comment(f'{one.confidence.word}: by the types and references of its columns')}"
    known = {*one.calls.values()}
    others = [c.name for c in one.table.columns.values() if c.name not in known and set(words(c.name)) & KINDS_OF_CALLS]
    for column in others[:1]:
        example = scalar(f"{quoted(column)} = 'replay'")
        yield f"      # rows: {example}{comment('does it count other calls, too? say which are replays')}"


def _counted(one: TableMatch) -> Lines:
    """Which rows count if some are soft-deleted. Needs evidence: no check looks at the rows left out."""
    found = counted_rows(one)
    if found is not None:
        mark = "" if found.confidence > Confidence.PERHAPS else "# "
        said = comment(f"{found.confidence.word}: {found.reason}", "" if not mark else "take the # away if so")
        yield f"      {mark}rows: {scalar(found.expression)}{said}"


def _columns(found: Diagnosis, one: TableMatch) -> Lines:
    lines, absent = [], []
    for column in one.relation.columns if not one.calls else ():
        seen = found.comparison.of("column", f"{one.relation.name}.{column}")
        match = one.columns.get(column)
        if match is not None and (form := _limit_key(found, one, column)):
            lines.append(f"        {column}: {{{form}}}{comment('likely: as its rows are written')}")
        elif match is None and (derived := _derived(one, column)):
            lines.append(f"        {column}: {{sql: {scalar(derived)}}}  # likely: the contract derives it so")
        elif match is None or "." in match.column.name:
            absent.append(column)
        elif one.relation.columns[column] == "timestamptz" and bare(match.column.type) == "timestamp without time zone":
            real = match.column.name
            read, write = f"{quoted(real)} at time zone 'UTC'", "{} at time zone 'UTC'"
            said = "perhaps: if it holds UTC; else the zone of its clock"
            lines.append(
                f"        {column}: {{is: {scalar(real)}, sql: {scalar(read)}, write: {scalar(write)}}}{comment(said)}"
            )
        elif match.column.name != column and seen is not None:
            lines.append(f"        {column}: {scalar(match.column.name)}{guess(seen)}")
        elif seen is not None and seen.presence is Presence.DIFFERS and not _is_numbered(one, column):
            lines.append(f"        {column}: {scalar(match.column.name)}{comment(seen.detail)}")
    if lines:
        yield "      columns:"
        yield from lines
    if absent:
        yield "      absent:"
    for column in absent:
        reads = "read as null" if column in one.relation.nullable else "checks that need it are unknown"
        yield f"        - {column}  # found nothing that is it: {reads}"


def _derived(one: TableMatch, column: str) -> str:
    """The expression for a column that the contract itself derives from another; empty if there is none."""
    source, form = DERIVED.get((one.relation.name, column), ("", ""))
    real = one.columns[source].column.name if source in one.columns else ""
    return form.format(quoted(real)) if real else ""


def _limit_key(found: Diagnosis, one: TableMatch, column: str) -> str:
    """The entry in `columns` for the key of the rate limit, if its rows are not written as the contract's."""
    form = found.comparison.rows.limit_form
    if (one.relation.name, column) != ("edge_rate_limits", "key") or form in {None, CONTRACT_FORM}:
        return ""
    real = one.columns[column].column.name
    read, write = limit_keys.expressions(form, quoted(real))
    return f"is: {scalar(real)}, sql: {scalar(read)}, write: {scalar(write)}"


def _values(found: Diagnosis, one: TableMatch) -> Lines:
    places = {c: found.comparison.values.get(f"{one.relation.name}.{c}") for c in one.relation.values}
    if one.relation.name == "feature_flags":
        places["key"] = {o.name: o.real for o in found.objects if o.kind == "flag" and o.presence is Presence.RENAMED}
    renamed = {c: v for c, v in places.items() if v}
    numbered = [c for c in one.relation.values if _is_numbered(one, c)]
    if renamed or numbered:
        yield "      values:" if renamed else "      # values:"
    for column in numbered:
        said = ", ".join(f'{value}: "?"' for value in one.relation.values[column])
        yield f"      #   {column}: {{{said}}}  # kept as a number: say which is which"
    for column, values in renamed.items():
        said = ", ".join(f"{w}: {scalar(r)}" for w, r in values.items())
        yield f"        {column}: {{{said}}}{comment('likely: by their words')}"


def _is_numbered(one: TableMatch, column: str) -> bool:
    match = one.columns.get(column)
    return match is not None and column in one.relation.values and bare(match.column.type) in WHOLES


def _further(one: TableMatch) -> Lines:
    """Columns without a default that the contract does not know: the gate's own rows need a value there."""
    lacking = needed(one.table, {m.column.name for m in one.columns.values()} | {*one.calls.values()})
    if one.relation.name not in WRITTEN or one.table.is_view or not lacking:
        return
    yield "      also:  # what the gate's own rows hold in columns that the contract does not know"
    for column in lacking:
        value = filling(column)
        refers = f"refers to {column.references}: give the id of a row of it" if column.references else ""
        said = comment(f"perhaps: {column.type} without a default", refers)
        yield f"        {scalar(column.name)}: {scalar(value)}{said}"


def needed(table: SchemaTable, known: set[str]) -> list[SchemaColumn]:
    """Other columns of which every row needs a value."""
    return [c for c in table.columns.values() if c.not_null and not c.has_default and c.name not in known]


def filling(column: SchemaColumn) -> str:
    return FILLED.get(bare(column.type), f"'{column.values[0]}'" if column.values else "null")
