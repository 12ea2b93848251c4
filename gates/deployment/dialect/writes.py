"""Translates statements that write a relation of the contract: renames its columns in place, translates its values."""

from collections.abc import Iterator
from dataclasses import dataclass

from gates.contract.limit_calls import LimitCalls
from gates.contract.names import Names, RelationNames
from gates.deployment.dialect.current import AbsentColumn
from gates.deployment.dialect.relations import WHOLE, absent, kind_of, read, real_name, translated
from gates.deployment.dialect.tokens import Parameter, Statement, literal, quoted

DECORATION = frozenset(
    {
        ("companies", "name"),
        ("feature_flags", "description"),
        ("feature_flags", "updated_at"),
        ("agent_controls", "pause_reason"),
        ("agent_controls", "updated_at"),
        ("audit_logs", "actor"),
        ("audit_logs", "target_count"),
        ("audit_logs", "success_count"),
        ("audit_logs", "failure_count"),
        ("event_outbox", "event_type"),
        ("dead_letter_queue", "event_type"),
        ("dead_letter_queue", "error_type"),
        ("dead_letter_queue", "error_message"),
        ("agent_tasks", "agent_name"),
    }
)
"""Columns that are left out of writes if the deployment lacks them: their value means nothing to it."""
COUNTED = ("bigint", "integer")
_AFTER_SOURCES = {"where", "group", "order", "limit", "union", "having", "window", "for", "offset"}
_CLAUSES = {"from", "where", "returning", "on", ";"}


@dataclass(frozen=True, slots=True)
class DmlTarget:
    """A relation that a statement writes; `kind`: insert, update or delete; `at`: the position of its name."""

    kind: str
    at: int
    names: RelationNames


def write_target(found: Statement, target: DmlTarget, ids: Names) -> None:
    """Translate the statement of this target. Raise AbsentColumn or AbsentTable."""
    _Writer(found, target, ids).write()


class _Writer:
    def __init__(self, found: Statement, target: DmlTarget, ids: Names) -> None:
        self._s, self._names, self._ids, self._at = found, target.names, ids, target.at
        self._kind = target.kind
        self._end = found.end_of_query(target.at)
        after = target.at + 3
        has_as = found.word(after) == "as"
        self._has_alias = has_as or found.is_name(after)
        self._alias = found.word(after + has_as) if self._has_alias else self._names.contract.name
        self._body = after + has_as + self._has_alias

    def write(self) -> None:
        s = self._s
        plain: list[tuple[int, int]] = []
        setting = s.find({"set"}, self._body, self._end) if self._kind == "update" else self._end + 1
        conflict = self._conflict()
        if conflict < self._end:
            setting = s.find({"set"}, conflict, self._end)
            if s.word(conflict + 1) == "(":
                plain = [(conflict + 1, s.closing(conflict + 1))]
                self._rename(*plain[0])
        if self._kind == "insert" and s.word(self._body) == "(":
            plain.append((self._body, s.closing(self._body)))
        self._columns(setting, plain)
        if setting < self._end:
            self._assignments(setting + 1)
        self._returning()
        if self._kind == "insert":
            self._insert()
        real = real_name(self._names)
        s.write(self._at, self._at + 2, real if self._has_alias else f"{real} as {quoted(self._alias)}")
        if self._kind != "insert" and self._names.rows:
            self._counted()

    # --- columns in expressions ----------------------------------------------------------------------------------

    def _columns(self, setting: int, plain: list[tuple[int, int]]) -> None:
        """Replace every mention of a column of the target by the expression of its contract value."""
        s, skipped = self._s, set(self._assigned(setting))
        for first, last in plain:
            skipped |= set(range(first, last + 1))
        for at in range(self._body, self._end + 1):
            word = s.word(at)
            if at in skipped or s.word(at + 1) == "(" or s.word(at - 1) == "as":
                continue
            if word == self._alias and s.word(at - 1) != "." and s.word(at + 1) != ".":
                if not self._is_hidden(at, word):
                    self._whole_row(at)
            elif word in self._names.contract.columns:
                self._column(at, word)

    def _column(self, at: int, column: str) -> None:
        s = self._s
        qualifier = s.word(at - 2) if s.word(at - 1) == "." else ""
        if qualifier in {self._alias, "excluded"}:
            if s.word(at - 3) != ".":
                s.write(at - 2, at, read(self._names, self._ids, column, quoted(qualifier)))
        elif not qualifier and s.word(at + 1) != "=>" and self._is_target(at, column):
            s.write(at, at, read(self._names, self._ids, column, quoted(self._alias)))

    def _is_target(self, at: int, column: str) -> bool:
        """Whether an unqualified column is the target's: the source of an INSERT has no target."""
        in_source = self._kind == "insert" and at < self._source_end()
        return not in_source and not self._is_hidden(at, column)

    def _conflict(self) -> int:
        """The position of CONFLICT; one past the end if there is none."""
        found = self._s.find({"conflict"}, self._body, self._end)
        return found if self._kind == "insert" and self._s.word(found - 1) == "on" else self._end + 1

    def _source_end(self) -> int:
        return min(self._conflict() - 1, self._s.find({"returning"}, self._body, self._end))

    def _is_hidden(self, at: int, name: str) -> bool:
        """Whether a sub-query around a position has, or may have, a source of its own with that name."""
        s = self._s
        for opening in range(self._body, at):
            close = s.closing(opening) if s.word(opening) == "(" else at
            if close > at and s.word(opening + 1) in {"select", "with"}:
                first = s.find({"from"}, opening + 1, close - 1) + 1
                last = s.find(_AFTER_SOURCES, first, close - 1) - 1
                starts = [first, *(p + 1 for p in s.top(first, last) if s.word(p) in {"join", ","})]
                if first < close and any(self._may_have(start, last, name) for start in starts):
                    return True
        return False

    def _may_have(self, at: int, last: int, name: str) -> bool:
        """Whether the source that begins here has a column of that name; True if unknown."""
        s = self._s
        while s.word(at) in {"lateral", "only"}:
            at += 1
        if s.word(at) == "public" and s.word(at + 1) == ".":
            relation = self._ids.relations.get(s.word(at + 2))
            return relation is None or name in relation.contract.columns
        end = s.find({"join", ",", "on", "left", "cross", "inner"}, at, last)
        if s.word(at + 1) == "(":  # a function has the columns of its alias
            return any(s.word(p) == name for p in range(s.closing(at + 1) + 1, end))
        return s.word(at) != "(" or any(s.word(p) == name for p in range(at, end))

    def _whole_row(self, at: int) -> None:
        """The row of the target, with the contract's columns."""
        names = self._names
        kept = [c for c in names.contract.columns if c not in names.absent]
        columns = [f"{read(names, self._ids, c, quoted(self._alias))} as {quoted(c)}" for c in kept]
        self._s.write(at, at, f"(select whole from (select {', '.join(columns)}) whole)")

    def _rename(self, first: int, last: int) -> None:
        for at in range(first, last + 1):
            column = self._s.word(at)
            if column in self._names.contract.columns:
                self._needed(column)
                self._s.write(at, at, quoted(self._names.column(column)))

    def _needed(self, column: str) -> None:
        if not self._names.is_writable(column):
            if column in self._names.absent:
                raise absent(f"{self._names.contract.name}.{column}")
            raise AbsentColumn(
                f"names: in gate.yaml gives {self._names.contract.name}.{column} as SQL that is only read; this check"
                " writes it. Add `is` and `write`, if a real column holds it"
            )

    # --- values --------------------------------------------------------------------------------------------------

    def _stored(self, column: str, first: int, last: int) -> str:
        """The text of a value that is stored in a column."""
        s, values = self._s, self._names.values.get(column)
        text = s.render(first, last).strip()
        if form := self._names.written.get(column):
            kind = self._names.contract.columns[column]
            return form.replace("{}", f"({text})::{kind if kind == 'timestamptz' else 'text'}")
        if not values or text.lower() in {"default", "null"}:
            return text
        if first == last and (given := s.string(first)) is not None:
            return literal(values.get(given, given))
        if (parameter := s.parameter(text)) is not None:
            return s.mark(Parameter(parameter.key, values))
        made = translated(f"({text})::text", values)
        is_numbered = all(map(WHOLE.fullmatch, values.values()))  # a number may also be stored as text
        return f"{made}::integer" if is_numbered else made

    def _is_left_out(self, column: str) -> bool:
        """Whether a value is not written: the target lacks the column, and does not need it."""
        if self._names.is_writable(column):
            return False
        if (self._names.contract.name, column) not in DECORATION:
            self._needed(column)
        return True

    def _assigned(self, setting: int) -> Iterator[int]:
        """The positions of the columns that are set."""
        if setting < self._end:
            last = self._s.find(_CLAUSES, setting + 1, self._end) - 1
            for first, _ in self._s.split(setting + 1, last):
                yield first

    def _assignments(self, first: int) -> None:
        s = self._s
        last = s.find(_CLAUSES, first, self._end) - 1
        kept = []
        for start, end in s.split(first, last):
            column = s.word(start)
            if not self._is_left_out(column):
                kept.append(f"{quoted(self._names.column(column))} = {self._stored(column, start + 2, end)}")
        if not kept:
            columns = [s.word(start) for start, _ in s.split(first, last)]
            raise absent(", ".join(f"{self._names.contract.name}.{column}" for column in columns))
        s.write(first, last, ", ".join(kept))

    def _returning(self) -> None:
        s = self._s
        first = s.find({"returning"}, self._body, self._end) + 1
        for start, end in s.split(first, self._end) if first <= self._end else []:
            column = s.word(end)
            text = s.render(start, end)
            is_column = column in self._names.contract.columns and end - start in {0, 2} and s.word(end - 1) != "as"
            if column == "*" and start == end:
                kept = [c for c in self._names.contract.columns if c not in self._names.absent]
                text = ", ".join(f"{read(self._names, self._ids, c)} as {quoted(c)}" for c in kept)
                s.write(start, end, text)
            elif is_column and text != quoted(column):
                s.write(start, end, f"{text} as {quoted(column)}")

    def _counted(self) -> None:
        """Restrict the change to rows that `rows` in the names keeps."""
        s, rows = self._s, self._names.rows
        last = s.find({"returning", ";"}, self._body, self._end) - 1
        where = s.find({"where"}, self._body, last)
        text = s.render(last, last)
        if where > last:
            s.write(last, last, f"{text} where ({rows})")
        else:
            s.write(last, last, f"{text})")
            s.write(where, where, f"where ({rows}) and (")

    # --- insert --------------------------------------------------------------------------------------------------

    def _insert(self) -> None:
        """Translate the values of an INSERT: drop those without a column, add those that the target requires."""
        s, names = self._s, self._names
        if s.word(self._body) != "(":
            raise absent("an INSERT without a list of columns")
        close = s.closing(self._body)
        columns = [s.word(first) for first, _ in s.split(self._body + 1, close - 1)]
        if names.calls:
            self._calls(names.calls, columns, close)
            return
        kept = [n for n, column in enumerate(columns) if not self._is_left_out(column)]
        also = {c: v for c, v in names.also.items() if c not in {names.column(columns[n]) for n in kept}}
        end = self._source_end() - 1
        for first, last in self._rows(close + 1, end):
            parts = s.split(first, last)
            texts = [self._stored(columns[n], *parts[n]) for n in kept]
            s.write(first, last, ", ".join([*texts, *also.values()]))
        listed = ", ".join(quoted(c) for c in (*(names.column(columns[n]) for n in kept), *also))
        overriding = " overriding system value" if self._gives_an_id([columns[n] for n in kept]) else ""
        s.write(self._body, close, f"({listed}){overriding}")

    def _calls(self, calls: LimitCalls, columns: list[str], close: int) -> None:
        """One row of the rate limit, as a row for each call. Tenant and address keep their types."""
        s, names = self._s, self._names
        self._needed("hits")
        first = close + 3
        if s.word(close + 1) != "values":
            raise absent("an INSERT of calls without VALUES")
        row = first, s.closing(first - 1) - 1
        said = {c: s.render(*part).strip() for c, part in zip(columns, s.split(*row), strict=True)}
        key, times = said.get("key", "null"), f"unnest({said.get('hits', 'null')}) c(at)"
        made = {names.column("hits"): names.written["hits"].replace("{}", "array[c.at]")}
        if calls.number:
            made[calls.number] = "1"
        if calls.company:
            whose = {calls.company: f"split_part({key}, ':', 2)"}
            if calls.address:
                whose[calls.address] = f"regexp_replace({key}, '^[^:]*:[^:]*:', '')"
            told = ", ".join(f"{literal(column)}, {sql}" for column, sql in whose.items())
            times += f", jsonb_populate_record(null::{real_name(names)}, jsonb_build_object({told})) k"
            made |= {column: f"k.{quoted(column)}" for column in whose}
        else:
            made[names.column("key")] = self._stored("key", *s.split(*row)[columns.index("key")])
        made |= {c: v for c, v in names.also.items() if c not in made}
        listed = ", ".join(map(quoted, made))
        s.write(self._body, row[1] + 1, f"({listed}) select {', '.join(made.values())} from {times}")

    def _gives_an_id(self, columns: list[str]) -> bool:
        """Whether we give the row an id although the target numbers its rows itself."""
        return "id" in columns and self._ids.id_type(kind_of(self._names.contract.name, "id")) in COUNTED

    def _rows(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The lists of values: each row after VALUES, or the select list of each SELECT."""
        s = self._s
        values = s.find({"values"}, first, last)
        if values <= last:
            for at in s.top(values + 1, last):
                if s.word(at) == "(":
                    yield at + 1, s.closing(at) - 1
            return
        for at in list(s.top(first, last)):
            if s.word(at) == "select":
                start = at + 1 + (s.word(at + 1) in {"all", "distinct"})
                yield start, s.find({"from", "where", "union", "order", "limit", "group"}, start, last) - 1
