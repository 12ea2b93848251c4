"""The names of the deployment that this process looks at: learned once, from the policy, and the same at every door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gates.contract.names import Names, load

NAMES = "GATE_NAMES"
"""The variable by which the process of a suite is told the names."""


class Writer(Protocol):
    """Writes a statement of the contract, with its parameters, as the deployment has it."""

    def of(self, text: str, given: Any) -> tuple[str, Any]: ...


class _InUse:
    names = Names()
    environ: Mapping[str, str] = {}
    writer: Writer | None = None


def use(names: Names, environ: Mapping[str, str] | None = None) -> None:
    """From now on every statement and exchange of this process has these names; `environ` has the values of $NAME."""
    _InUse.names, _InUse.environ, _InUse.writer = names, environ or {}, None
    if names.maps_sql:
        from gates.deployment.dialect.statement import Translator  # noqa: PLC0415  -- the parser costs 0.2 s

        _InUse.writer = Translator(names)


def learn(environ: Mapping[str, str]) -> None:
    """Use the names that the environment of a suite tells, where it tells any."""
    if environ.get(NAMES):
        use(load(environ[NAMES]), environ)


def current() -> Names:
    """The names in use; none where the deployment has the contract's own."""
    return _InUse.names


def named(text: str) -> str:
    """A statement without parameters as the deployment has it. Raise AbsentName."""
    return text if _InUse.writer is None else _InUse.writer.of(text, None)[0]


def writer() -> Writer | None:
    """What writes statements, or None where they stay as they are."""
    return _InUse.writer
