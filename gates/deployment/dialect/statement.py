"""Translates a statement of the contract: relations, columns, values, functions, roles, types.

The gate names every object of the contract as `public.name` in a query, and as `'public.name'` or
`'public.table.column'` in a string; `'{public}'` are the schemas of the deployment. A quoted name is real and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from gates.contract.contract import contract
from gates.contract.names import ID_KINDS, Names
from gates.deployment.dialect.relations import absent, kind_of, real_name, subquery, translated
from gates.deployment.dialect.tokens import Parameter, Statement, literal, quoted
from gates.deployment.dialect.writes import DmlTarget, write_target

PUBLIC = "public"
TENANT_COLUMNS = "{company_id,tenant_id}"
"""The expression by which the catalogue checks find columns that hold a tenant."""
OF_A_COMPANY = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
"""The expression by which checks recognise the text of a company's id."""
FORMS = {"uuid": OF_A_COMPANY, "text": "^(?!all$).", "bigint": "^[0-9]+$", "integer": "^[0-9]+$"}
NEW_NUMBER = {
    "bigint": "(1125899906842624 + floor(random() * 2251799813685248))::bigint",
    "integer": "(1500000000 + floor(random() * 500000000))::integer",
}
"""Type of ids -> SQL of a new one, far from the deployment's own like those of gates.deployment.ids."""
FLAGS = "{" + ",".join(contract().flags) + "}"
"""The expression by which a check asks for every flag. Flags of areas that are not claimed are left out."""
OF_BUCKETS = "public.is_feature_enabled.bucket"
"""The expression by which checks ask for the formula that draws tenants: `own` if it is the deployment's."""
_COMMANDS = {"table", "truncate", "lock", "analyze", "only"}
_OF_A_TABLE = {("like", "(")}
"""What precedes a name in `create table x (like public.y)`."""


@lru_cache(maxsize=4096)
def _translated(text: str, names: Translator) -> tuple[str, tuple[Parameter, ...]]:
    return names.statement(text)


class Translator:
    """Translates statements to the names of one deployment; caches each text."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._literals = _literals(names)
        self._flags = names.flag_keys

    def translate(self, text: str) -> tuple[str, tuple[Parameter, ...]]:
        """The statement and its parameters, in order. Raise AbsentColumn or AbsentTable."""
        return _translated(text, self)

    def of(self, text: str, given: Any) -> tuple[str, Any]:
        """The statement with the given parameters. Raise AbsentColumn or AbsentTable."""
        found, parameters = self.translate(text)
        return found, None if given is None else [p.of(given) for p in parameters]

    def statement(self, text: str) -> tuple[str, tuple[Parameter, ...]]:
        found = Statement(text)
        stored = self._as_stored(found)
        self._casts(found)
        self._strings(found)
        self._roles(found)
        targets = []
        # a called name is a function: `count(*)` mentions no column
        words = {word for at, word in enumerate(found.words) if found.word(at + 1) != "("}
        dropped = self._without_absent(found)
        for at in range(len(found)):
            kind = self._kind(found, at) if at not in dropped else ""
            if kind == "function":
                self._function(found, at)
            elif kind == "command":
                found.write(at, at + 2, real_name(self._names.relations[found.word(at + 2)]))
            elif kind == "read":
                self._read(found, at, words, stored)
            elif kind:
                targets.append(DmlTarget(kind, at, self._names.relations[found.word(at + 2)]))
        if self._flags:
            self._bucket_keys(found)
        for target in reversed(targets):
            write_target(found, target, self._names)
        return found.finished()

    def _as_stored(self, found: Statement) -> str:
        """The relation with the deployment's own stored values: the hash of an audit row covers those. Raise
        AbsentColumn if a column is an expression: nobody knows what the hash covers there.
        """
        if not {"sha256", "prev_hash"} <= set(found.words):
            return ""
        audit = self._names.relations.get("audit_logs")
        if audit is not None and not audit.columns.keys() >= audit.expressions.keys():
            raise absent("the text that the hash of an audit row covers (a column of it is an expression)")
        return "audit_logs"

    def _bucket_keys(self, found: Statement) -> None:
        """Hash the real key of a flag in bucket formulas: `lower(key ':' company)`."""
        for at in range(len(found)):
            if found.word(at) == "lower" and found.word(at + 1) == "(":
                last = found.closing(at + 1)
                joined = [p for p in range(at + 2, last) if found.word(p) == "||"]
                if len(joined) == 2 and found.string(joined[0] + 1) == ":":
                    key = found.render(at + 2, joined[0] - 1)
                    found.write(at + 2, joined[0] - 1, translated(f"({key})::text", self._flags))

    # --- relations and functions ---------------------------------------------------------------------------------

    def _kind(self, found: Statement, at: int) -> str:
        """The kind of contract name that begins here: read, command, function, insert, update or delete."""
        if found.word(at) != PUBLIC or found.is_quoted(at) or found.word(at + 1) != "." or found.word(at - 1) == ".":
            return ""
        name = found.word(at + 2)
        if name in self._names.functions and found.word(at + 3) == "(":
            return "function"
        if name not in self._names.relations or found.is_quoted(at + 2) or self._names.relations[name].is_plain:
            return ""
        before = at - 2 if found.word(at - 1) == "only" else at - 1
        match found.word(before), found.word(before - 1):
            case "into", "insert":
                return "insert"
            case "from", "delete":
                return "delete"
            case "update", other if other not in {"for", "do", "key"}:
                return "update"
            case word, other if word in _COMMANDS or (word, other) in _OF_A_TABLE:
                return "command"
        return "read"

    def _without_absent(self, found: Statement) -> set[int]:
        """Remove the parts of a UNION that read a table that the deployment lacks, and return their positions. The
        first part stays: it names the columns.
        """
        dropped: set[int] = set()
        for at in range(len(found)):
            if (
                at not in dropped
                and self._kind(found, at) == "read"
                and not self._names.relations[found.word(at + 2)].name
            ):
                first, last = found.part_of_union(at)
                if first:
                    found.write(first, last, "")
                    dropped |= set(range(first, last + 1))
        return dropped

    def _read(self, found: Statement, at: int, words: set[str], stored: str) -> None:
        name = found.word(at + 2)
        names = self._names.relations[name]
        if name == stored:
            names = replace(names, values={}, expressions={})
        has_alias = found.word(at + 3) == "as" or found.is_name(at + 3)
        alias = found.word(at + 4 if found.word(at + 3) == "as" else at + 3) if has_alias else name
        text = subquery(names, self._names, words, whole=_is_whole(found, alias))
        found.write(at, at + 2, text if has_alias else f"{text} as {quoted(name)}")

    def _function(self, found: Statement, at: int) -> None:
        function = self._names.functions[found.word(at + 2)]
        last = found.closing(at + 3)
        parts = found.split(at + 4, last - 1)
        if self._flags and len(parts) == len(function.order):
            self._key(found, *parts[0])
        arguments = [found.render(*part) for part in parts]
        if len(arguments) == len(function.order) and function.order != tuple(range(len(arguments))):
            found.write(at + 4, last - 1, ", ".join(arguments[n].strip() for n in function.order))
        found.write(at, at + 2, f"{quoted(function.schema)}.{quoted(function.name)}")

    def _key(self, found: Statement, first: int, last: int) -> None:
        """Replace the flag key that the function is called with by the real one."""
        text = found.render(first, last).strip()
        if first == last and (given := found.string(first)) is not None:
            found.write(first, first, literal(self._flags.get(given, given)))
        elif (parameter := found.parameter(text)) is not None:
            found.write(first, last, found.mark(Parameter(parameter.key, self._flags)))
        else:
            found.write(first, last, translated(f"({text})::text", self._flags))

    # --- literals, roles and types -------------------------------------------------------------------------------

    def _strings(self, found: Statement) -> None:
        for at in range(len(found)):
            text = found.string(at)
            if text is not None and text in self._literals:
                found.write(at, at, self._literals[text])

    def _roles(self, found: Statement) -> None:
        for at in range(1, len(found)):
            role = found.word(at)
            if found.word(at - 1) == "role" and role in self._names.roles:
                if self._names.roles[role] is None:
                    raise absent(f"the role {role}")
                found.write(at, at, quoted(str(self._names.roles[role])))

    def _casts(self, found: Statement) -> None:
        if not self._names.ids:
            return
        new_event = NEW_NUMBER.get(self._names.id_type("event"), "")
        for at in range(1, len(found)):
            if new_event and found.word(at) == "gen_random_uuid" and found.word(at + 1) == "(":
                found.write(at, at + 2, new_event)  # new ids that a statement makes are of events
            if found.word(at) == "uuid" and found.word(at - 1) == "::":
                kind = self._kind_of_cast(found, at)
                found.write(at, at, self._names.id_type(kind))

    def _kind_of_cast(self, found: Statement, at: int) -> str:
        """The kind of the id that is cast: of the column that the array is unnested into, or the last one named."""
        named = _unnested_into(found, at)
        if named == "id" and (own := kind_of(_inserted_into(found, at), "id")):
            return own
        for place in range(at, -1, -1):
            word = found.word(place)
            if named and named != "id":
                return kind_of("", named)
            if word == "is_feature_enabled":
                return "company"
            if word in ID_KINDS:
                return ID_KINDS[word]
            relation = found.word(place + 2) if word == PUBLIC else ""
            if f"{relation}.id" in ID_KINDS:
                return ID_KINDS[f"{relation}.id"]
        return "company"


def _is_whole(found: Statement, alias: str) -> bool:
    """Whether rows are read as a whole: by a star that is no multiplication and no count, or by the relation's name."""
    for at in range(len(found)):
        word = found.word(at)
        if word == "*" and found.word(at - 1) in {"select", ",", ".", "distinct", "all", "returning"}:
            return True
        if word == alias and found.word(at - 1) in {"(", ",", "select"} and found.word(at + 1) in {")", ",", "from"}:
            return True
        if word == alias and found.word(at + 1) == "::":
            return True
    return False


def _unnested_into(found: Statement, at: int) -> str:
    """The name of the column into which the cast array is unnested; empty if it is not."""
    for place in range(at, max(at - 40, 0), -1):
        if found.word(place) == "unnest" and found.word(place + 1) == "(":
            last = found.closing(place + 1)
            if not place < at < last:
                return ""
            parts = found.split(place + 2, last - 1)
            number = next(n for n, (first, end) in enumerate(parts) if first <= at <= end)
            opening = next((p for p in range(last + 1, min(last + 6, len(found))) if found.word(p) == "("), 0)
            if not opening or any(found.word(p) in {"join", "where", ",", ")"} for p in range(last + 1, opening)):
                return ""
            names = [found.word(first) for first, _ in found.split(opening + 1, found.closing(opening) - 1)]
            return names[number] if number < len(names) else ""
    return ""


def _inserted_into(found: Statement, at: int) -> str:
    """The relation of the contract into which the statement around a position inserts; empty if it does not."""
    for place in range(at, -1, -1):
        if found.word(place) == "into" and found.word(place + 1) == PUBLIC:
            return found.word(place + 3)
    return ""


def _literals(names: Names) -> Mapping[str, str]:
    """Text of a string in the contract's statements -> the SQL that replaces it."""
    found = {"{public}": literal(_array(names.schemas))}
    for name, relation in names.relations.items():
        whole = real_name(relation) if relation.name else ""
        found[f"public.{name}"] = literal(whole) if whole else "null::text"
        found[f"public.{name}.rows"] = literal(relation.rows) if relation.rows else "null::text"
        for column in relation.contract.columns:
            real = f"{whole}.{quoted(relation.column(column))}"
            is_grouped = relation.calls is not None and column == "hits"
            is_there = whole and relation.is_writable(column) and not is_grouped
            found[f"public.{name}.{column}"] = literal(real) if is_there else "null::text"
    for name, function in names.functions.items():
        found[f"public.{name}"] = literal(f"{quoted(function.schema)}.{quoted(function.name)}")
    found[OF_BUCKETS] = literal("own" if names.own_buckets else OF_BUCKETS)
    for role, its in names.roles.items():
        found[role] = literal(f"no role for {role}" if its is None else its)  # a missing role: nobody
    found[FLAGS] = literal(_array(tuple(f for f, area in contract().flags.items() if names.claims(area))))
    found[OF_A_COMPANY] = literal(FORMS[names.id_type("company")])
    tenants = {r.column("company_id") for r in names.relations.values() if "company_id" in r.contract.columns}
    tenants |= {r.calls.company for r in names.relations.values() if r.calls and r.calls.company}
    found[TENANT_COLUMNS] = literal(_array(("company_id", "tenant_id", *sorted(tenants - {"company_id", "tenant_id"}))))
    return found


def _array(items: tuple[str, ...]) -> str:
    """A PostgreSQL array literal of names."""
    escape: Callable[[str], str] = lambda text: text.replace("\\", "\\\\").replace('"', '\\"')  # noqa: E731
    return "{" + ",".join(f'"{escape(i)}"' if not i.isidentifier() else i for i in items) + "}"
