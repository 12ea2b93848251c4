"""Mutants of Python: a statement deleted, a condition negated, a limit moved, a function left early. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

BOUNDARIES: dict[type[ast.cmpop], str] = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">"}
OPPOSITES: dict[type[ast.cmpop], str] = {
    ast.Eq: "!=", ast.NotEq: "==", ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip
SWAPPED_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
SAYS_A_TIME = ("_s", "_ms", "timeout", "interval", "size", "count", "connections")
"""Suffixes of names whose number may be any: how long, how often, how many at once."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a text: `start` to `end` becomes `new`. operator: the kind of change."""

    operator: str
    start: int
    end: int
    new: str


def changes(text: str) -> Iterator[Edit]:
    """Every change of a module, in no order."""
    place = _Places(text)
    classes = (n for n in ast.walk(place.tree) if isinstance(n, ast.ClassDef))
    of_classes = {n for c in classes for d in c.decorator_list for n in ast.walk(d)}
    """Decorator arguments of classes (frozen, slots), which have no effect on behaviour."""
    for node in ast.walk(place.tree):
        match node:
            case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Raise() if not _logs(node):
                yield place.put(node, "delete", "pass")
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                yield place.put(node, "delete", "pass")
            case ast.If() | ast.While() | ast.IfExp() if not (_is_turned_elsewhere(node.test) or _logs(node.test)):
                yield place.put(node.test, "negate", f"(not ({place.text(node.test)}))")
            case ast.comprehension(ifs=tests):
                for test in tests:
                    yield place.put(test, "drop", "True")
            case ast.Compare(left=left, ops=[operator], comparators=[right]):
                new = BOUNDARIES.get(type(operator)) or OPPOSITES[type(operator)]
                kind = "boundary" if type(operator) in BOUNDARIES else "compare"
                yield place.put(node, kind, f"({place.text(left)} {new} {place.text(right)})")
            case ast.BoolOp():
                yield from _of_conditions(place, node)
            case ast.Constant(value=bool() as value) if node not in of_classes:
                yield place.put(node, "constant", str(not value))
            case ast.BinOp(op=ast.Add() | ast.Sub()) if _counts(node):
                sign = "-" if isinstance(node.op, ast.Add) else "+"
                yield place.put(node, "arithmetic", f"({place.text(node.left)} {sign} {place.text(node.right)})")
            case ast.Call(func=ast.Name(id=name)) if name in SWAPPED_CALLS:
                yield place.put(node.func, "call", SWAPPED_CALLS[name])
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _left_early(place, node)
    yield from _numbers(place)


def _of_conditions(place: _Places, node: ast.BoolOp) -> Iterator[Edit]:
    word, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
    parts = [f"({place.text(value)})" for value in node.values]
    yield place.put(node, "and-or", f"({f' {other} '.join(parts)})")
    for i in range(len(parts)):
        yield place.put(node, "drop", f"({f' {word} '.join(parts[:i] + parts[i + 1 :])})")


def _left_early(place: _Places, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Edit]:
    """A function that does nothing, or always returns the same."""
    body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    yields = any(isinstance(n, ast.Yield | ast.YieldFrom) for n in ast.walk(node))
    if not body or yields or node.name in {"__init__", "main"} or node.returns is None:
        return
    if len(body) == 1 and isinstance(body[0], ast.Expr):  # leaving there is the same as deleting it
        return
    answers = {"None": ["return"], "bool": ["return True", "return False"]}.get(ast.unparse(node.returns), [])
    if answers and isinstance(body[0], ast.Pass | ast.Return) and answers[0] == "return":
        return
    for answer in answers:
        yield place.before(body[0], "return", answer)


def _numbers(place: _Places) -> Iterator[Edit]:
    """Whole numbers plus one, except those of times or sizes."""
    for node in ast.walk(place.tree):
        named = ""
        match node:
            case ast.Assign(targets=[ast.Name(id=named)], value=ast.Constant() as constant):
                pass
            case ast.AnnAssign(target=ast.Name(id=named), value=ast.Constant() as constant):
                pass
            case ast.keyword(arg=str() as named, value=ast.Constant() as constant):
                pass
            case ast.Compare(comparators=[ast.Constant() as constant]) | ast.BinOp(right=ast.Constant() as constant):
                pass
            case _:
                continue
        if type(constant.value) is int and not named.lower().endswith(SAYS_A_TIME):
            yield place.put(constant, "constant", str(constant.value + 1))


def _is_turned_elsewhere(test: ast.expr) -> bool:
    """Whether another operator already negates the condition: `==` becomes `!=`, and True becomes False."""
    match test:
        case ast.Compare(ops=[operator]):
            return type(operator) in OPPOSITES
        case _:
            return isinstance(test, ast.Constant)


def _logs(node: ast.AST) -> bool:
    """Whether it writes to a log, or gets a logger; no gate reads logs."""
    return any(isinstance(n, ast.Name) and n.id in {"_LOG", "_note", "sys"} for n in ast.walk(node))


def _counts(node: ast.BinOp) -> bool:
    """Whether both sides may be numbers."""
    known = ast.Constant | ast.JoinedStr | ast.List | ast.Tuple | ast.Dict | ast.Set
    sides = [n for n in ast.walk(node) if isinstance(n, known)]
    return all(isinstance(n, ast.Constant) and isinstance(n.value, int | float) for n in sides)


class _Places:
    """The positions of nodes in a text. Columns of the syntax tree count bytes."""

    def __init__(self, text: str) -> None:
        self.tree = ast.parse(text)
        self._text = text
        self._lines = text.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def text(self, node: ast.expr) -> str:
        start, end = self._span(node)
        return self._text[start:end]

    def put(self, node: ast.expr | ast.stmt, operator: str, new: str) -> Edit:
        return Edit(operator, *self._span(node), new)

    def before(self, node: ast.stmt, operator: str, statement: str) -> Edit:
        start, _ = self._span(node)
        return Edit(operator, start, start, f"{statement}\n{' ' * node.col_offset}")

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        last, column = node.end_lineno or node.lineno, node.end_col_offset or 0
        return self._offset(node.lineno, node.col_offset), self._offset(last, column)

    def _offset(self, line: int, column: int) -> int:
        before = self._lines[line - 1].encode()[:column]
        return self._starts[line - 1] + len(before.decode())
