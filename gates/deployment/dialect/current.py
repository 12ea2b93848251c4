"""The names of the deployment that this process looks at: set once from the policy, and used everywhere."""

import json
from collections.abc import Mapping
from typing import Any, Protocol

import psycopg

from gates.contract.names import CLAIMS_SETTING, Names, load
from gates.deployment.dialect.words import HttpWords

NAMES = "GATE_NAMES"
"""The variable that tells the process of a suite the names."""


class AbsentColumn(psycopg.errors.UndefinedColumn):
    """The deployment lacks a column that a statement needs, by its names; treated like the server's own error."""


class AbsentTable(psycopg.errors.UndefinedTable):
    """Like AbsentColumn, for a table."""


class Writer(Protocol):
    """Translates a statement of the contract, with its parameters, for the deployment."""

    def of(self, text: str, given: Any) -> tuple[str, Any]: ...


class _InUse:
    names = Names()
    writer: Writer | None = None
    of_every_row: Writer | None = None
    words: HttpWords | None = None


def use(names: Names, environ: Mapping[str, str] | None = None) -> None:
    """Use these names for every further statement and exchange of this process; `environ` has the values of $NAME."""
    _InUse.names, _InUse.writer, _InUse.of_every_row = names, None, None
    _InUse.words = HttpWords(names, environ or {}) if names else None
    if names.maps_sql:
        from gates.deployment.dialect.statement import Translator  # noqa: PLC0415  -- the parser costs 0.2 s

        _InUse.writer = Translator(names)
        _InUse.of_every_row = Translator(names.with_every_row()) if names.leaves_rows_out else _InUse.writer


def learn(environ: Mapping[str, str]) -> None:
    """Use the names in the environment of a suite, if it has any."""
    if environ.get(NAMES):
        use(load(environ[NAMES]), environ)


def current() -> Names:
    """The names in use; none if the deployment has the contract's own."""
    return _InUse.names


def http_words() -> HttpWords | None:
    """The words of the deployment's HTTP, or None where they are the contract's."""
    return _InUse.words


def real_claims(claims: Mapping[str, Any]) -> Mapping[str, Any]:
    """Claims of a tenant as the deployment reads them."""
    return claims if _InUse.words is None else _InUse.words.claims(claims)


def tenant_session(claims: Mapping[str, Any]) -> tuple[str, str]:
    """The setting by which policies know the tenant, and its value for these claims of the contract."""
    if setting := _InUse.names.tenant_setting:
        company = claims.get("company_id")
        return setting, company if isinstance(company, str) else "" if company is None else json.dumps(company)
    return CLAIMS_SETTING, json.dumps(real_claims(claims))


def secrets() -> Mapping[str, str]:
    """The secrets among the headers of every request -> the variables that hold them."""
    return _InUse.words.secrets if _InUse.words is not None else {}


def named(text: str) -> str:
    """A statement without parameters, translated for the deployment. Raise AbsentColumn or AbsentTable."""
    return text if _InUse.writer is None else _InUse.writer.of(text, None)[0]


def for_hand(text: str) -> str:
    """A statement for people to run, translated for the deployment; empty if the deployment lacks what it needs."""
    try:
        return named(text) if text else ""
    except psycopg.Error:
        return ""


def written(text: str, given: Any, *, every_row: bool = False) -> tuple[str, Any]:
    """A statement and its parameters, translated for the deployment. Raise AbsentName. every_row: includes the rows
    that `rows` in the names leaves out.
    """
    writer = _InUse.of_every_row if every_row else _InUse.writer
    return (text, given) if writer is None else writer.of(text, given)


def writer() -> Writer | None:
    """The translator of statements, or None if they stay as they are."""
    return _InUse.writer
