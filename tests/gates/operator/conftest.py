"""A server of the last verdicts, for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gates.operator.served import served


@pytest.fixture(params=[""], ids=["open"])
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """A server over the state folder tmp_path; the parameter is its token."""
    with served(tmp_path, request.param) as number:
        yield number
