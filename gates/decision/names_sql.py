"""SQL in `names:` of gate.yaml: one expression, which changes nothing but what the gate decides to write."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gates.evidence import JsonValue
from gates.inputs.shapes import Text
from gates.inputs.strict_yaml import YamlNode

VALUE = "{}"
"""Where the contract's value stands in what `write` says."""
TELLING = "pg_(typeof|column_size|is_in_recovery|postmaster_start_time|backend_pid|input_is_valid)"
ACTING = re.compile(
    rf"(?!{TELLING}$)(pg|lo|dblink|binary_upgrade)_\w+|dblink|set_config|setval|\w+_to_xml\w*|ts_stat|ts_rewrite"
)
"""Functions of the server that act on it, or run SQL that they are given as text. Those of `TELLING` only answer."""


@dataclass(frozen=True, slots=True)
class SqlExpression:
    """One SQL expression. Where `takes_value`, `{}` stands in it for a value, and not inside of a string.

    It is put between the parentheses of a statement of ours, so it must not close them, hide what follows in a comment,
    lock rows or call a function that acts. Functions of the deployment are not known here: they may be called.
    """

    takes_value: bool = False

    def read(self, node: YamlNode) -> str:
        text = Text(r"[^\0]+", self._said()).read(node)
        if problem := next(_problems(text, takes_value=self.takes_value), ""):
            raise node.place.error(f"{text!r}: {problem}", self._said(), "Write an expression over the row")
        return text

    def schema(self) -> dict[str, JsonValue]:
        return {"type": "string", "pattern": r"\{\}" if self.takes_value else "^[^\\0]+$", "description": self._said()}

    def _said(self) -> str:
        return "one SQL expression" + (" with {} for the contract's value" if self.takes_value else "")


def _problems(text: str, *, takes_value: bool) -> Iterator[str]:
    import postgast  # noqa: PLC0415  -- the parser costs 0.1 s, and most policies have no SQL
    from postgast.pg_query_pb2 import CommonTableExpr, FuncCall, LockingClause, ParamRef, Token  # noqa: PLC0415

    sql = text.replace(VALUE, "$1") if takes_value else text
    try:
        # alone it ends what it begins; between parentheses it is neither a list nor more than an expression
        alone, inside = postgast.parse(f"select {sql}"), postgast.parse(f"select ({sql}\n)")
        tokens = postgast.scan(sql).tokens
    except postgast.PgQueryError as error:
        yield " ".join(str(error).split())
        return
    if any(token.token in {Token.SQL_COMMENT, Token.C_COMMENT} for token in tokens):
        yield "a comment"
    if len(alone.stmts) != 1 or len(inside.stmts) != 1 or len(alone.stmts[0].stmt.select_stmt.target_list) != 1:
        yield "not one expression"
    nodes = list(_nodes(inside))
    values = sum(isinstance(node, ParamRef) for node in nodes)
    if takes_value and (not values or values != text.count(VALUE)):
        yield "{} inside of a string, or none"
    if values and not takes_value:
        yield "a parameter"
    for node in nodes:
        if isinstance(node, LockingClause):
            yield "it locks rows"
        if isinstance(node, CommonTableExpr) and not node.ctequery.HasField("select_stmt"):
            yield "it changes rows"
        if isinstance(node, FuncCall) and ACTING.fullmatch(name := node.funcname[-1].string.sval):
            yield f"{name}() acts on the server"


def _nodes(tree: Any) -> Iterator[Any]:
    """Every node of a parsed statement."""
    left = [tree]
    while left:
        node = left.pop()
        yield node
        for field, value in node.ListFields():
            if field.message_type is not None:
                left += (value,) if hasattr(value, "ListFields") else value
