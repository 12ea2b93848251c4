"""Reads the cells of a foreign database. A cell that Python cannot hold spoils no other cell.

Such a cell (a year beyond 9999, an infinite time, a document of 10^400, bytes that are not UTF-8) is read as text,
which no check mistakes for an expected value.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import postgres, sql
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format

from gates.text.foreign import JsonValue, json_value

FAST = frozenset({"bool", "int2", "int4", "int8", "oid", "float4", "float8", "uuid", "bytea"})
"""Types all of whose texts Python holds."""
MOST_DIGITS = 20
"""As many as the largest integer of eight bytes."""
ANY_OTHER_TYPE = 0


def _encoding(connection: psycopg.BaseConnection[Any]) -> str:
    """That of texts: a database with the encoding SQL_ASCII may hold any bytes, and psycopg writes UTF-8 there."""
    encoding = connection.info.encoding
    return "utf-8" if encoding == "ascii" else encoding


def with_values(
    connection: psycopg.Connection[Any], statement: str, values: Sequence[object] | Mapping[str, object]
) -> str:
    """The statement with its values in place of its placeholders."""

    def literal(given: object) -> str:
        return sql.Literal(given).as_bytes(connection).decode(_encoding(connection))

    if isinstance(values, Mapping):
        return statement % {name: literal(given) for name, given in values.items()}
    return statement % tuple(map(literal, values))


class _TextLoader(Loader):
    """Text of any bytes."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._encoding = _encoding(self.connection) if self.connection else "utf-8"

    def load(self, data: Buffer) -> JsonValue:
        return bytes(data).decode(self._encoding, "replace")


class _DocumentLoader(_TextLoader):
    """JSON, read as a foreign value; a document that cannot be read stays text."""

    def load(self, data: Buffer) -> JsonValue:
        source = str(super().load(data))
        found = json_value(source)
        return source if found is None and source.strip() != "null" else found


class _NumericLoader(_TextLoader):
    """A number; a whole one is an integer, since a deployment may count in `numeric(5, 2)`."""

    def load(self, data: Buffer) -> Any:
        found = Decimal(str(super().load(data)))
        is_whole = found.is_finite() and found.adjusted() < MOST_DIGITS and found % 1 == 0
        return int(found) if is_whole else found


SPECIAL: Mapping[str, type[Loader]] = {"json": _DocumentLoader, "jsonb": _DocumentLoader, "numeric": _NumericLoader}


def _tolerant(usual: type[Loader]) -> type[Loader]:
    """The usual loader of a type, which returns the text if it cannot return the value."""

    class TolerantLoader(_TextLoader):
        def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
            super().__init__(oid, context)
            self._usual = usual(oid, context)

        def load(self, data: Buffer) -> Any:
            try:
                return self._usual.load(data)
            except Exception:  # noqa: BLE001  -- psycopg says DataError, Python OverflowError, ValueError and others
                return super().load(data)

    return TolerantLoader


def _loader(name: str, usual: type[Loader]) -> type[Loader]:
    if name in SPECIAL:
        return SPECIAL[name]
    is_text = usual.__name__ == "TextLoader"
    return _TextLoader if is_text else _tolerant(usual)


class Tolerance:
    """The adapters of a connection that can read every cell."""

    connection = None

    def __init__(self) -> None:
        self.adapters = AdaptersMap(psycopg.adapters)
        self.adapters.register_loader(ANY_OTHER_TYPE, _TextLoader)
        for info in postgres.types:
            usual = psycopg.adapters.get_loader(info.oid, Format.TEXT)
            if usual is not None and info.name not in FAST:
                self.adapters.register_loader(info.oid, _loader(info.name, usual))  # type: ignore[arg-type]


TOLERANCE = Tolerance()
