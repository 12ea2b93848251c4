"""Brings up examples/pg-boss."""

NAME = "pg-boss"


def bring_up(*_: object) -> dict[str, str]:
    raise NotImplementedError
