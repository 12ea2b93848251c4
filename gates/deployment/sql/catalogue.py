"""The target's catalogue: how a statement writes a name from it, and whose relations the gate may read. Reading a
relation runs its owner's code (a view's functions, a policy) with the rights of the reader.
"""

from collections.abc import Sequence
from pathlib import Path

from psycopg import sql

from gates.contract.fragments import expand

FRAGMENTS = Path(__file__).parent / "fragments"


def identifier(*parts: str) -> str:
    """A real name for a statement with parameters: always quoted, so it never means a name of the contract."""
    return sql.Identifier(*parts).as_string().replace("%", "%%")


def array(ids: Sequence[str]) -> str:
    """Ids for `column = any(%s)`: a literal takes the type of the column, so that its index is used."""
    return "{" + ",".join(f'"{one}"' for one in ids) + "}"


def with_fragments(statement: str) -> str:
    """Fill `{{trusted_owner}}` (whether the owner of relation `c` may run code as the gate) and `{{lock_holders}}`."""
    return expand(statement, [FRAGMENTS])
