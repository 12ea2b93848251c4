"""The name that the server misses or finds twice, from its message; and the names that a statement would create."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import postgast
from postgast.pg_query_pb2 import AlterTableType

from gates.rehearsal.reading.splitting import SqlStatement

_QUOTED = r'"((?:[^"]|"")+)"'
_PART = rf"(?P<word>constraint|trigger|policy|rule) {_QUOTED}"
_MISSING: tuple[tuple[str, str], ...] = (
    (rf"{_PART} (?:of|for) (?:table|relation|domain) {_QUOTED} does not exist", "part"),
    (rf"{_PART} does not exist", "part"),
    (rf"column {_QUOTED} of relation {_QUOTED} does not exist", "column"),
    (rf"column {_QUOTED} (?:referenced in foreign key constraint |named in key )?does not exist", "column"),
    (r"column (?:([\w$]+)\.)?([\w$]+) does not exist", "dotted column"),
    (rf"record {_QUOTED} has no field {_QUOTED}", "field"),
    (rf"relation {_QUOTED} does not exist", "relation"),
    (rf"(?P<word>materialized view|table|view|sequence|index) {_QUOTED} does not exist", "relation"),
    (rf"missing FROM-clause entry for table {_QUOTED}", "alias"),
    (rf"type {_QUOTED} does not exist", "type"),
    (rf"role {_QUOTED} does not exist", "role"),
    (rf"schema {_QUOTED} does not exist", "schema"),
    (rf"extension {_QUOTED} (?:is not available|does not exist|must be installed)", "extension"),
    (r'could not open extension control file ".*/([^/"]+)\.control"', "extension"),
    (rf"(?P<word>language|collation|publication|server|tablespace|database) {_QUOTED} does not exist", "other"),
    (r"(?:function|procedure|aggregate|routine) ([\w$.\"]+)\(.*\) does not exist", "function"),
    (r"could not find a (?:function|procedure) named \"([^\"]+)\"", "function"),
)


@dataclass(frozen=True, slots=True)
class MissingName:
    """A name that the server did not find: kind, name, schema, a column's relation, the server's word for the kind."""

    kind: str
    name: str
    schema: str = ""
    of: str = ""
    word: str = field(default="", compare=False)


def missing_name(message: str) -> MissingName | None:
    """The missing name in a server's message."""
    for pattern, kind in _MISSING:
        if found := re.search(pattern, message):
            word, at = found.groupdict().get("word", ""), found.re.groupindex.get("word", 0)
            groups = [g or "" for index, g in enumerate(found.groups(), 1) if index != at]
            if kind == "dotted column":
                return MissingName("column", groups[1], of=groups[0])
            if kind == "field":
                return MissingName("column", groups[1])
            schema, name = split_name(groups[0])
            return MissingName(kind, name, schema, split_name(groups[1])[1] if len(groups) > 1 else "", word)
    return None


def split_name(text: str) -> tuple[str, str]:
    """Schema and name of a name as messages write it."""
    schema, dot, name = text.replace('""', '"').rpartition(".")
    return (schema.strip('"'), name.strip('"')) if dot else ("", text.strip('"'))


def makes(statement: SqlStatement) -> frozenset[MissingName]:
    """The names that a statement would create; nothing if it cannot be parsed."""
    try:
        tree = postgast.parse(statement.text)
    except postgast.PgQueryError:
        return frozenset(_written(statement))
    return frozenset(n for raw in tree.stmts for n in _of_tree(raw.stmt, statement))


def _of_tree(node: object, statement: SqlStatement) -> Iterator[MissingName]:
    kind = node.WhichOneof("node")  # type: ignore[attr-defined]
    made = getattr(node, kind)
    if kind == "create_stmt":
        yield from _relation(made.relation)
        for element in made.table_elts:
            if element.WhichOneof("node") == "column_def":
                yield MissingName("column", element.column_def.colname, of=made.relation.relname)
    elif kind == "alter_table_stmt":
        for item in made.cmds:
            command = item.alter_table_cmd
            if command.subtype == AlterTableType.AT_AddColumn:
                yield MissingName("column", getattr(command, "def").column_def.colname, of=made.relation.relname)
            elif command.subtype == AlterTableType.AT_AddConstraint:
                yield MissingName("part", getattr(command, "def").constraint.conname, of=made.relation.relname)
    elif kind == "rename_stmt":
        column = made.subname and made.newname and "column" in statement.plain
        yield MissingName("column" if column else "relation", made.newname, of=made.relation.relname if column else "")
    elif kind == "view_stmt":
        yield from _relation(made.view)
    elif kind == "create_table_as_stmt":
        yield from _relation(made.into.rel)
    elif kind == "index_stmt":
        yield MissingName("relation", made.idxname)
    elif kind == "create_seq_stmt":
        yield from _relation(made.sequence)
    elif kind == "create_function_stmt":
        yield _named("function", made.funcname)
    elif kind == "create_enum_stmt":
        yield _named("type", made.type_name)
    elif kind == "create_domain_stmt":
        yield _named("type", made.domainname)
    elif kind == "composite_type_stmt":
        yield MissingName("type", made.typevar.relname)
    elif kind == "create_schema_stmt":
        yield MissingName("schema", made.schemaname)
    elif kind == "create_role_stmt":
        yield MissingName("role", made.role)
    elif kind == "create_extension_stmt":
        yield MissingName("extension", made.extname)
    elif kind in {"create_trig_stmt", "create_policy_stmt"}:
        name, table = (made.trigname, made.relation) if kind == "create_trig_stmt" else (made.policy_name, made.table)
        yield MissingName("part", name, of=table.relname)
    elif kind == "do_stmt":
        yield from _written(statement)


def _relation(of: object) -> Iterator[MissingName]:
    yield MissingName("relation", of.relname, of.schemaname)  # type: ignore[attr-defined]
    yield MissingName("type", of.relname, of.schemaname)  # type: ignore[attr-defined]


def _named(kind: str, parts: Sequence[object]) -> MissingName:
    names = [part.string.sval for part in parts]  # type: ignore[attr-defined]
    return MissingName(kind, names[-1], names[-2] if len(names) > 1 else "")


_CREATE = re.compile(
    r"\bcreate\s+(?:or\s+replace\s+)?(?:unlogged\s+|materialized\s+)?(table|view|function|procedure|type|domain|schema|role|"
    r"sequence|extension)\s+(?:if\s+not\s+exists\s+)?([\w$.\"]+)",
    re.IGNORECASE,
)
_ADD = re.compile(r"\badd\s+column\s+(?:if\s+not\s+exists\s+)?([\w$\"]+)", re.IGNORECASE)
_KINDS = {"table": "relation", "view": "relation", "sequence": "relation", "procedure": "function", "domain": "type"}


def _written(statement: SqlStatement) -> Iterator[MissingName]:
    """The names written in a block of code, or in a statement with a syntax error."""
    for found in _CREATE.finditer(statement.text):
        schema, name = split_name(found[2])
        kind = found[1].lower()
        yield MissingName(_KINDS.get(kind, kind), name if found[2].startswith('"') else name.lower(), schema)
    for found in _ADD.finditer(statement.text):
        yield MissingName("column", found[1].strip('"'))


def is_made_by(missing: MissingName, made: MissingName) -> bool:
    """Whether the missing name would have been created. Indexes and tables share one namespace."""
    same = missing.kind == made.kind and missing.name == made.name
    schema = not missing.schema or not made.schema or missing.schema == made.schema
    relation = not missing.of or not made.of or missing.of == made.of
    return same and schema and (relation or missing.kind == "column")
