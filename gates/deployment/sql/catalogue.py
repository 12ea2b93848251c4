"""What the target's catalogue names: how a statement writes such a name, and whose relations the gate may read.

Reading a relation runs the code of its owner (a view's functions, a policy) with the rights of the reader.
"""

from collections.abc import Sequence
from pathlib import Path

from psycopg import sql

from gates.contract.fragments import expand

FRAGMENTS = Path(__file__).parent / "fragments"


def identifier(*parts: str) -> str:
    """A real name for a statement with parameters: always in quotes, so that no name of the contract is meant."""
    return sql.Identifier(*parts).as_string().replace("%", "%%")


def array(ids: Sequence[str]) -> str:
    """Ids for `column = any(%s)`: a literal takes the type of the column, whose index finds them then."""
    return "{" + ",".join(f'"{one}"' for one in ids) + "}"


def with_trust(statement: str) -> str:
    """The statement with `{{trusted_owner}}` put in: whether the owner of relation `c` may run code as the gate."""
    return expand(statement, [FRAGMENTS])
