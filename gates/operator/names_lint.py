"""`gate lint --target`: `names:` of gate.yaml checked against the database; each mistake with its place in the file."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from gates.contract.contract import contract
from gates.contract.names import ID_KINDS, MemberNames, Names, RelationNames, names_of
from gates.decision.policy_file import PolicyFile
from gates.deployment.dialect.current import use
from gates.deployment.dialect.relations import WHOLE
from gates.deployment.queue.schema import look_at
from gates.deployment.sql.database import Connection, execute, session, sql
from gates.errors import CannotWork, ConfigError, first_line
from gates.inputs.shapes import nearest
from gates.inputs.strict_yaml import Place, YamlNode

QUERIES = Path(__file__).with_name("sql")
FITTING: Mapping[str, tuple[str, ...]] = {
    "uuid": ("uuid",),
    "text": ("text", "character varying", "character", "name", "citext", "uuid"),
    "integer": ("integer", "smallint", "bigint", "numeric"),
    "bigint": ("bigint", "integer", "smallint", "numeric"),
    "boolean": ("boolean",),
    "timestamptz": ("timestamp with time zone",),
    "timestamptz[]": ("timestamp with time zone[]",),
    "date": ("date",),
    "jsonb": ("jsonb",),
    "xid8": ("xid8",),
}
"""Type of the contract -> types that are accepted instead. Enumerations are accepted for text."""
PUBLIC = "public"
"""The schema of the contract's own names."""
ENUM = "E"
NAMES_A_ROW = {"agent_tasks.id"}
"""Columns that may have any type: no check counts or orders by them."""


def against_target(file: PolicyFile, url: str) -> list[str]:
    """Where the names (or the contract's own) differ from the database. Raise CannotWork if it cannot be asked."""
    use(Names())  # real names are asked for
    try:
        with session(url, read_only=True) as connection:
            return [str(e) for e in _problems(connection, file)]
    except psycopg.Error as error:
        said = f"the names were not looked at: DATABASE_URL: {first_line(error)}; allowed: a database that answers"
        raise CannotWork(f"{said}. Check that it runs") from None
    finally:
        use(file.names)


def _problems(connection: Connection, file: PolicyFile) -> Iterator[ConfigError]:
    node = file.root.member("names") or file.root
    names = file.names if file.names.relations else names_of({"schema": PUBLIC})
    unclaimed = set(file.scope.unclaimed)
    if file.queue is not None and (trouble := look_at(file.queue, connection).trouble):
        place = file.root.place_of("contract", "preset")
        yield place.error(trouble, f"the tables of {file.queue.preset.title}", "Correct the entry, or the database")
    yield from _of_relations(connection, names, node, unclaimed)
    for name, function in names.functions.items():
        here = node.member("functions")
        if contract().functions[name].area in unclaimed and name not in names.given.get("functions", {}):
            continue
        place = (here or node).place_of(name, "is")
        found = _rows(connection, "functions_of_name", function.schema, function.name)
        kinds = contract().functions[name].arguments
        wanted = [names.id_type("company") if kinds[n] == "uuid" else kinds[n] for n in function.order]
        real = f"{function.schema}.{function.name}"
        if not found:
            yield place.error(f"there is no function {real}", "what stands for " + name, "Correct the name")
        elif not any(_fit(wanted, list(row["arguments"])) for row in found):
            shown = "; ".join(", ".join(row["arguments"]) for row in found)
            yield place.error(f"{real} takes ({shown})", f"({', '.join(wanted)})", "Correct `arguments`")
    yield from _of_members(connection, names.members, node.member("members") or node)
    for role, its in names.roles.items():
        if its and not execute(connection, "select 1 from pg_catalog.pg_roles where rolname = %s", its):
            yield node.place_of("roles", role).error(f"there is no role {its!r}", "a role, or null", "Correct the name")


def _of_relations(
    connection: Connection, names: Names, node: YamlNode, unclaimed: Collection[str]
) -> Iterator[ConfigError]:
    """What is wrong with each named or claimed table and view. All that are missing and not named are one mistake."""
    tables = node.member("tables")
    missing = []
    for name, one in names.relations.items():
        here = tables.member(name) if tables else None
        if not one.name or (here is None and one.contract.area in unclaimed):
            continue
        rows = _rows(connection, "columns_of_relation", one.schema, one.name)
        if rows:
            yield from _of_columns(connection, names, one, rows, here or node)
        elif here is None:
            missing.append(f"{one.schema}.{one.name}")
        else:
            said = f"there is no table or view {one.schema}.{one.name}"
            yield here.place_of("is").error(said, f"what stands for {name}", "Correct it, or `absent: true`")
    if missing:
        yield node.place.error(
            f"the database has not {', '.join(missing)}",
            "every table and view of what the policy claims",
            "See that DATABASE_URL is the right one; or draft `names:` (`gate doctor --write`), or claim less",
        )


def _of_members(connection: Connection, members: MemberNames | None, node: YamlNode) -> Iterator[ConfigError]:
    if members is None:
        return
    wanted = {"company": members.company, "user": members.user} | {name: name for name in members.also}
    asked = [("is", members.schema, members.name, wanted)]
    asked += [("users", schema, name, {"id": "id"}) for schema, name in members.users]
    for part, schema, name, columns in asked:
        found = {str(row["name"]) for row in _rows(connection, "columns_of_relation", schema, name)}
        if not found:
            yield node.place_of(part).error(
                f"there is no table {schema}.{name}", "what says whose a user is", "Correct it"
            )
            continue
        for said, column in columns.items():
            if column not in found:
                place = node.place_of(*(("also", column) if column in members.also else (said,)))
                yield place.error(
                    f"{schema}.{name} has no column {column!r}", nearest(column, tuple(found)), "Correct it"
                )


def _of_columns(
    connection: Connection, ids: Names, names: RelationNames, rows: Sequence[Mapping[str, object]], node: YamlNode
) -> Iterator[ConfigError]:
    real = f"{names.schema}.{names.name}"
    found = {str(row["name"]): row for row in rows}
    for column, kind in names.contract.columns.items():
        place = node.place_of("calls") if names.calls and column != "key" else node.place_of("columns", column)
        if column in names.absent:
            continue
        if column in names.expressions:
            yield from _of_expression(connection, names, column, place)
        elif (row := found.get(names.column(column))) is None:
            said = f"{real} has no column {names.column(column)!r}"
            yield place.error(said, f"what stands for {column}", nearest(names.column(column), tuple(found)))
        else:
            yield from _of_column(ids, names, column, kind, row, node.place_of("columns", column))
    for column in names.also.keys() - found.keys():
        yield node.place_of("also", column).error(f"{real} has no column {column!r}", ", ".join(found), "Correct it")


def _of_column(
    ids: Names, names: RelationNames, column: str, kind: str, row: Mapping[str, object], place: Place
) -> Iterator[ConfigError]:
    if f"{names.contract.name}.{column}" in NAMES_A_ROW:
        return
    key = ID_KINDS.get(f"{names.contract.name}.{column}") or ID_KINDS.get(column)
    wanted = ids.id_type(key) if key else kind
    values = names.values.get(column, {}).values()
    is_numbered = bool(values) and wanted == "text" and str(row["type"]) in FITTING["integer"]
    fits = str(row["type"]) in FITTING[wanted] or (wanted == "text" and row["category"] == ENUM) or is_numbered
    if not fits:
        said = f"{names.schema}.{names.name}.{row['name']} is {row['type']}"
        do = "Say it in `ids`" if key else "Map it by `values` or {sql: ...}, or say that it is absent"
        yield place.error(said, f"for {column}: {', '.join(FITTING[wanted])}", do)
    labels = row["labels"]
    known = [str(label) for label in labels] if isinstance(labels, list) else []
    for value in values:
        if (known and value not in known) or (is_numbered and not WHOLE.fullmatch(value)):
            said = f"{value!r} is no value of {row['type']}"
            yield place.error(said, ", ".join(known) or "whole numbers", "Correct `values`")


def _of_expression(connection: Connection, names: RelationNames, column: str, place: Place) -> Iterator[ConfigError]:
    try:
        table = Identifier(names.schema, names.name)
        text = SQL("select ({}) from {} limit 0")
        connection.execute(text.format(SQL(names.expressions[column]), table))
    except psycopg.Error as error:
        yield place.error(f"{column}: {first_line(error)}", "an expression over the row", "Correct the SQL")


def _fit(wanted: list[str], found: list[str]) -> bool:
    return len(wanted) == len(found) and all(f in FITTING[w] for w, f in zip(wanted, found, strict=True))


def _rows(connection: Connection, query: str, schema: str, name: str) -> list[dict[str, Any]]:
    """The result rows of a query in this folder about an object."""
    cursor = connection.execute(sql(QUERIES / f"{query}.sql").encode(), {"schema": schema, "name": name})
    return cursor.fetchall()
