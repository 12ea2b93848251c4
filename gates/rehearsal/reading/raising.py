"""Whether PL/pgSQL raises an error that reaches its caller: neither caught by a handler nor behind IF false."""

import re
from typing import Any

from gates.rehearsal.reading.plpgsql import UnreadBodyError, tree_of
from gates.rehearsal.reading.splitting import SqlStatement

ERROR = 21
"""The parser's number of RAISE EXCEPTION; warnings have smaller ones."""
_RAISES = re.compile(r"\braise\b(?!\s+(?:debug|log|info|notice|warning)\b)|\bassert\b", re.IGNORECASE)
_ANY = re.compile(r"\b(?:raise(?:\s+\w+)?|assert)\b", re.IGNORECASE)
_CAUGHT = {"others", "raise_exception", "P0001"}


def how_it_raises(statement: SqlStatement) -> str:
    """RAISE or ASSERT if an error of a DO block or function reaches its caller; else nothing."""
    try:
        return _of(tree_of(statement)[0])
    except UnreadBodyError:
        found = _RAISES.search(_without_comments(statement.text))
        return found[0].upper() if found else ""


def how_it_only_tells(statement: SqlStatement) -> str:
    """A RAISE of a block that is no error, or whose error reaches nobody."""
    found = _ANY.search(_without_comments(statement.text))
    return " ".join(found[0].upper().split()) if found else ""


def _of(node: Any) -> str:
    if isinstance(node, list):
        return next((how for one in node if (how := _of(one))), "")
    if not isinstance(node, dict):
        return ""
    if "PLpgSQL_stmt_raise" in node:
        return "RAISE" if node["PLpgSQL_stmt_raise"].get("elog_level") == ERROR else ""
    if "PLpgSQL_stmt_assert" in node:
        return "ASSERT"
    if branch := node.get("PLpgSQL_stmt_if"):
        never = branch["cond"]["PLpgSQL_expr"]["query"].strip().lower() in {"false", "1 = 0", "1=0"}
        return _of([v for k, v in branch.items() if k != "cond" and not (never and k == "then_body")])
    if block := node.get("PLpgSQL_stmt_block"):
        return _of_block(block)
    return _of(list(node.values()))


def _of_block(block: dict[str, Any]) -> str:
    handlers = block.get("exceptions", {}).get("PLpgSQL_exception_block", {}).get("exc_list", [])
    again = _of([h["PLpgSQL_exception"].get("action", []) for h in handlers])
    caught = {
        c["PLpgSQL_condition"]["condname"] for h in handlers for c in h["PLpgSQL_exception"].get("conditions", [])
    }
    how = _of(block.get("body", []))
    if how == "RAISE" and caught & _CAUGHT:
        how = ""
    if how == "ASSERT" and "assert_failure" in caught:  # OTHERS does not catch it
        how = ""
    return how or again


def _without_comments(body: str) -> str:
    return re.sub(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", " ", body, flags=re.DOTALL)
