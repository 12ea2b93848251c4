"""A deployment's schema as data: what the catalogue of its database says, uninterpreted. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from psycopg.sql import Identifier

from gates.doctor.reading.expressions import is_true
from gates.doctor.sqltypes import id_type
from gates.text import characters

PUBLIC = "public"
"""The contract's schema, unless gate.yaml says otherwise."""
TABLES, VIEWS = frozenset("rpf"), frozenset("vm")
"""pg_class.relkind of relations that store rows, and of those that only show them."""
UPDATE_DELETE_TRUNCATE = 16 | 8 | 32
"""Bits of pg_trigger.tgtype."""
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


def quoted(name: str) -> str:
    """A name for a statement: quoted if necessary."""
    return name if _PLAIN.fullmatch(name) else identifier(name)


def identifier(*parts: str) -> str:
    """A name in quotes, on one line and fully visible: invisible characters are SQL escapes. So no name ends a comment
    or hides a word in a script for review.
    """
    return ".".join(_in_quotes(part) for part in parts)


def _in_quotes(name: str) -> str:
    shown = characters.line(name) == name
    whole = name if shown else "".join(c if c.isascii() and c.isprintable() and c != "\\" else _code(c) for c in name)
    return ("" if shown else "U&") + Identifier(whole).as_string()


def _code(character: str) -> str:
    return f"\\+{ord(character):06x}"


@dataclass(frozen=True, slots=True)
class SchemaColumn:
    """One column. type: as PostgreSQL writes it, without a length; values: those of its enum or CHECK, if any."""

    name: str
    type: str
    not_null: bool = False
    has_default: bool = False
    comment: str = ""
    values: tuple[str, ...] = ()
    is_listed: bool = True
    """Whether the values are all that are allowed; else they are those that some rows hold."""
    references: str = ""
    """The qualified name of the table that it refers to."""
    cascades: bool = False
    """Whether its row is deleted with the row that it refers to."""


@dataclass(frozen=True, slots=True)
class UniqueKey:
    """A valid unique index. partial: it covers only the rows of `predicate`. expression: its text, if it has one."""

    name: str
    columns: tuple[str, ...]
    is_primary: bool = False
    partial: bool = False
    nulls_not_distinct: bool = False
    expression: str = ""
    predicate: str = ""


@dataclass(frozen=True, slots=True)
class RowPolicy:
    """A policy of row-level security. command: pg_policy.polcmd; rows: its USING, written: its WITH CHECK."""

    name: str
    command: str
    permissive: bool
    roles: tuple[str, ...]
    rows: str
    written: str = ""


@dataclass(frozen=True, slots=True)
class SchemaTable:
    """A table or view. secured, forced: its row-level security. narrowed: it limits what this login sees."""

    schema: str
    name: str
    kind: str
    columns: Mapping[str, SchemaColumn] = field(default_factory=dict)
    keys: tuple[UniqueKey, ...] = ()
    policies: tuple[RowPolicy, ...] = ()
    triggers: tuple[int, ...] = ()
    """pg_trigger.tgtype of each enabled trigger."""
    secured: bool = False
    forced: bool = False
    readable: bool = True
    narrowed: bool = False
    comment: str = ""
    grantees: tuple[str, ...] = ()
    """Roles other than the owner that have a right on it."""
    truncators: tuple[str, ...] = ()
    """Those that may TRUNCATE."""

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        """The name for a statement."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def is_view(self) -> bool:
        return self.kind in VIEWS

    @property
    def numbered_by(self) -> str:
        """The one column of a compound primary key that numbers the rows itself; empty if there is none. A native
        partition's key includes its partition column, too.
        """
        key = next((k.columns for k in self.keys if k.is_primary), ())
        own = [self.columns[c] for c in key if c in self.columns]
        ids = [c.name for c in own if c.has_default and not c.references and id_type(c.type)]
        return ids[0] if len(ids) == 1 else ""

    @property
    def refuses_changes(self) -> bool:
        """Whether triggers fire on UPDATE, DELETE and TRUNCATE; what they do is not known here."""
        fires = 0
        for one in self.triggers:
            fires |= one
        return fires & UPDATE_DELETE_TRUNCATE == UPDATE_DELETE_TRUNCATE


@dataclass(frozen=True, slots=True)
class SchemaFunction:
    """A function that returns a boolean."""

    schema: str
    name: str
    arguments: tuple[str, ...]
    argument_names: tuple[str, ...]
    returns: str
    callable: bool = True
    source: str = ""
    """Its text, cut."""

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class SchemaRole:
    name: str
    login: bool = False
    superuser: bool = False
    bypasses: bool = False
    member_of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Schema:
    """The whole schema. unread: parts that could not be read, each with the reason; they are unknown, not absent."""

    tables: tuple[SchemaTable, ...] = ()
    functions: tuple[SchemaFunction, ...] = ()
    roles: tuple[SchemaRole, ...] = ()
    login: str = ""
    database: str = ""
    schemas: tuple[str, ...] = ()
    claim_readers: Mapping[str, str] = field(default_factory=dict)
    """Functions that read request settings, directly or through others: name -> text."""
    unread: Mapping[str, str] = field(default_factory=dict)

    def closed(self, table: SchemaTable) -> str:
        """Why this login cannot see the rows of a table; empty if it can."""
        if not table.readable:
            return "this login may not read it"
        me = self.role(self.login) or SchemaRole(self.login)
        mine = {me.name, *me.member_of, "public"}
        policies = (p for p in table.policies if p.permissive and p.command in "r*" and set(p.roles) & mine)
        opened = not table.narrowed or any(is_true(p.rows) for p in policies)
        return "" if opened else "row-level security hides rows from this login"

    def role(self, name: str) -> SchemaRole | None:
        return next((r for r in self.roles if r.name == name), None)
