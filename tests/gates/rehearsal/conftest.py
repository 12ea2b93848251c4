"""All rehearsals of these tests have the same password, so that initdb runs only once."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from gates.rehearsal.postgres import server
from gates.stack.postgres import Postgres


@pytest.fixture(scope="module", autouse=True)
def one_initdb(initialised: Callable[[Postgres], None]) -> Iterator[None]:
    """A server gets a copy of the data folder that the first one made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "secrets", SimpleNamespace(token_hex=lambda count: "5e" * count))
        patch.setattr(Postgres, "create", initialised)
        yield
