"""Every statement of the gate that PostgreSQL accepts is also accepted under other names."""

import ast
import re
from collections.abc import Iterator
from itertools import count

import psycopg
import pytest
from psycopg.rows import dict_row

from gates.contract.fragments import expand
from gates.contract.names import names_of
from gates.deployment.dialect.statement import Translator
from tests import renamed
from tests.postgres_fixture import TEMPLATE, PgServer
from tests.sources import ROOT

ROOMS = ("gates/act", "gates/stages", "gates/deployment", "gates/operator", "drills", "loadtests", "sql_checks")
FRAGMENTS = (
    *(ROOT / "sql_checks" / room / "fragments" for room in ("spot", "alerts", "cohorts")),
    ROOT / "gates" / "deployment" / "sql" / "fragments",
)
NOT_STATEMENTS = ("fragments", "frame", "tests", "queues", "fingerprint")
STATEMENT = re.compile(r"\s*(--[^\n]*\n\s*)*(select|insert|update|delete|with)\b", re.IGNORECASE)


def statements() -> Iterator[tuple[str, str]]:
    """Place -> text: of .sql files, and of texts in Python that are whole statements."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.sql")):
            if not set(path.relative_to(ROOT).parts) & set(NOT_STATEMENTS):
                for number, part in enumerate(re.split(r"(?m)^-- seen:.*$", path.read_text(encoding="utf-8"))):
                    yield f"{path.relative_to(ROOT)}:{number}", expand(part, FRAGMENTS)
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and "public." in node.value:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value


def prepared(connection: psycopg.Connection[object], text: str) -> str:
    """Why the server does not prepare a statement; empty if it does."""
    numbers = count(1)
    text = re.sub(r"%\(\w+\)s|%s|%%", lambda m: "%" if m[0] == "%%" else f"${next(numbers)}", text)
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(f"prepare one as {text.rstrip().rstrip(';')}".encode())
            connection.execute("deallocate one")
    except psycopg.Error as error:
        return str(error)
    return ""


@pytest.fixture
def databases(pg_server: PgServer) -> Iterator[tuple[psycopg.Connection[object], psycopg.Connection[object]]]:
    """The reference's schema, and the same under other names; roles are the whole server's and keep theirs."""
    names = [pg_server.create_database(TEMPLATE) for _ in range(2)]
    plain, other = (psycopg.connect(pg_server.url(name), row_factory=dict_row) for name in names)
    renamed.rename(other, roles=False)
    other.commit()
    with plain, other:
        yield plain, other
    for name in names:
        pg_server.drop_database(name)


def test_every_statement(databases: tuple[psycopg.Connection[object], psycopg.Connection[object]]) -> None:
    """What can be prepared without a mapping can be prepared with one."""
    plain, other = databases
    translator = Translator(names_of({k: v for k, v in renamed.names().items() if k != "roles"}))
    seen, wrong = 0, {}
    for place, text in statements():
        if STATEMENT.match(text) and not prepared(plain, text):
            seen += 1
            translated = translator.of(text, None)[0]
            if why := prepared(other, translated):
                wrong[place] = f"{why}\n{translated}"
    assert wrong == {}
    assert seen > 250
