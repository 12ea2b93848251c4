"""Finds the options of a k6 script, or a pasted part of them, and reads the literal that they are, with all places.

The text is parsed as TypeScript, of which JavaScript and JSON are parts, so that what stands in a comment, a string, a
template or a regular expression is never taken for code. Whatever needs an engine (variables, calls, spreads, templates
with holes, options that are changed later or given twice) is refused with its place, and so are duplicate keys.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tree_sitter import Language, Parser
from tree_sitter import Node as Tree
from tree_sitter_typescript import language_typescript


@dataclass(frozen=True, slots=True)
class LiteralNode:
    """A value and where it began (both counted from 1). Arrays hold nodes; objects hold members in order."""

    value: bool | float | str | list[LiteralNode] | Members | None
    line: int
    column: int


@dataclass(slots=True)
class Members:
    """The members of an object: key to (node of the key, node of the value)."""

    items: dict[str, tuple[LiteralNode, LiteralNode]] = field(default_factory=dict)


class LiteralError(ValueError):
    """The text is no literal; `line` and `column` say where that became clear."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


MAX_DEPTH = 32
_FIRST = re.compile(
    r"(?:\s|\ufeff|//[^\n]*|/\*.*?\*/)*(?P<first>[\[{]|$|(?:[\w$]+|'[^'\n]*'|\"[^\"\n]*\")\s*:)?", re.DOTALL
)
_OCTAL = re.compile(r"0[0-9]")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0", "\n": "", "\r\n": ""}
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
_WRAPPERS = {"parenthesized_expression": 0, "as_expression": 0, "satisfies_expression": 0, "type_assertion": -1}
"""What may stand around a value and says nothing of it; and which of its parts the value is."""
_FUNCTIONS = {"function_declaration", "function_expression", "arrow_function", "method_definition"}
_CHANGES = {"assignment_expression": "left", "augmented_assignment_expression": "left", "update_expression": "argument"}
_EXPORTS = re.compile(r"(?:module\.)?exports(?P<options>\.options)?")
OPTIONS = "options"


def read_literal(text: str) -> LiteralNode:
    """Read one value: a literal, bare members such as `thresholds: {...},`, or the options that a script exports.

    Raise LiteralError with the place of the first thing that does not fit.
    """
    first = _FIRST.match(text)
    pasted = first["first"] if first else None
    if pasted is None:
        return _LiteralReader(text, "", "").options()
    if pasted in {"{", "["}:
        return _LiteralReader(text.rstrip().removesuffix(","), "_=", "").pasted()
    return _LiteralReader(text.rstrip().rstrip(",;"), "_={", "\n}").pasted()


@functools.cache
def _parser() -> Parser:
    return Parser(Language(language_typescript()))


class _LiteralReader:
    """Reads one text. `before` and `after` are put around it to make it a program."""

    def __init__(self, text: str, before: str, after: str) -> None:
        self.before = len(before)
        self.lines = text.encode("utf-8").split(b"\n")
        self.root = _parser().parse((before + text + after).encode("utf-8")).root_node
        for broken in _broken(self.root):
            whole = broken.start_byte <= self.before  # nothing fits together: what is missing is missing at the end
            line, column = (len(self.lines), len(self.lines[-1].decode("utf-8")) + 1) if whole else self.place(broken)
            wanted = "a comma, or the end of a bracket, quote or comment, is missing before this"
            raise LiteralError(f"this is no JavaScript: {wanted}", line, column)

    def place(self, tree: Tree) -> tuple[int, int]:
        row, column = tree.start_point
        column -= self.before if row == 0 else 0
        line = self.lines[row] if row < len(self.lines) else b""
        return row + 1, len(line[: max(0, column)].decode("utf-8", "replace")) + 1

    def error(self, tree: Tree, message: str) -> LiteralError:
        return LiteralError(message, *self.place(tree))

    def pasted(self) -> LiteralNode:
        """The value of the one statement that there is."""
        statement, *more = _parts(self.root)
        if more:
            raise self.error(more[0], "the literal ends before this; keep only the options or thresholds block")
        value = statement.named_children[0].child_by_field_name("right")
        if value is None:
            raise self.error(statement, "a literal was expected; keep only the options or thresholds block")
        return self.value(value)

    def options(self) -> LiteralNode:
        """The value of the one declaration of options."""
        found = [pair for statement in _parts(self.root) for pair in self.declared(statement)]
        exported = [value for value, is_exported in found if is_exported]
        alone = [value for value, _ in found] if len(_parts(self.root)) == 1 else []
        candidates = exported or alone
        if not candidates:
            raise self.error(self.root, "no exported options were found; write export const options = {...}")
        if len(candidates) > 1:
            line, _ = self.place(candidates[0])
            raise self.error(candidates[1], f"options are given twice (first on line {line}); keep one")
        for changed in _changes(self.root):
            raise self.error(changed, "options are changed here, which needs JavaScript; write them in one literal")
        return self.value(candidates[0])

    def declared(self, statement: Tree) -> Iterator[tuple[Tree, bool]]:
        """What a statement of the top level makes options, and whether it exports that."""
        declaration = statement.child_by_field_name("declaration")
        if statement.type == "export_statement" and declaration is not None:
            yield from ((value, True) for name, value in self.variables(declaration) if name == OPTIONS)
        elif statement.type == "export_statement":
            yield from ((value, True) for value in self.specified(statement))
        elif statement.type in {"lexical_declaration", "variable_declaration"}:
            yield from ((value, False) for _, value in self.variables(statement))
        elif statement.type == "expression_statement" and statement.named_children[0].type == "assignment_expression":
            left, right = (statement.named_children[0].child_by_field_name(side) for side in ("left", "right"))
            named = _EXPORTS.fullmatch(_text(left)) if left is not None else None
            if named and right is not None:
                yield (right if named["options"] else _member(right, OPTIONS) or right), True

    def variables(self, declaration: Tree) -> Iterator[tuple[str, Tree]]:
        for one in declaration.named_children:
            name, value = one.child_by_field_name("name"), one.child_by_field_name("value")
            if name is None:
                continue
            if name.type != "identifier" and OPTIONS in map(_text, _all(name)):
                raise self.error(name, "options taken out of another object need JavaScript; write the literal itself")
            if value is not None:
                yield _text(name), value
            elif _text(name) == OPTIONS:
                raise self.error(name, "options without a value; write the literal here")

    def specified(self, statement: Tree) -> Iterator[Tree]:
        """Values of `export { options }`, which is declared elsewhere in the text."""
        for one in (tree for tree in _all(statement) if tree.type == "export_specifier"):
            name, alias = one.child_by_field_name("name"), one.child_by_field_name("alias")
            if name is None or _text(alias or name) != OPTIONS:
                continue
            own = [
                value
                for other in _parts(self.root)
                if other.type in {"lexical_declaration", "variable_declaration"}
                for known, value in self.variables(other)
                if known == _text(name)
            ]
            if not own or statement.child_by_field_name("source") is not None:
                raise self.error(one, "these options come from another file; give that file")
            yield from own

    def value(self, tree: Tree, depth: int = 0) -> LiteralNode:
        if depth > MAX_DEPTH:
            raise self.error(tree, f"nested deeper than {MAX_DEPTH} levels")
        line, column = self.place(tree)
        if tree.type in _WRAPPERS:
            return self.value(_parts(tree)[_WRAPPERS[tree.type]], depth + 1)
        match tree.type:
            case "object":
                return LiteralNode(self.members(tree, depth), line, column)
            case "array":
                return LiteralNode([self.value(one, depth + 1) for one in _parts(tree)], line, column)
            case "string" | "template_string":
                return LiteralNode(self.string(tree), line, column)
            case "number":
                return LiteralNode(self.number(tree), line, column)
            case "unary_expression" if _text(tree.children[0]) in {"-", "+"} and tree.children[1].type == "number":
                sign = -1.0 if _text(tree.children[0]) == "-" else 1.0
                return LiteralNode(sign * self.number(tree.children[1]), line, column)
            case name if name in _WORDS:
                return LiteralNode(_WORDS[name], line, column)
        allowed = "a string, number, true, false, null, array or object was expected"
        raise self.error(tree, f"{allowed}, not {_text(tree)[:40]!r}")

    def members(self, tree: Tree, depth: int) -> Members:
        found = Members()
        for pair in _parts(tree):
            key, value = pair.child_by_field_name("key"), pair.child_by_field_name("value")
            if pair.type != "pair" or key is None or value is None or key.type == "computed_property_name":
                raise self.error(pair, f"a key was expected, and a literal as its value, not {_text(pair)[:40]!r}")
            name = self.string(key) if key.type == "string" else _text(key)
            if name in found.items:
                first = found.items[name][0]
                raise self.error(pair, f"key {name!r} is given twice (first on line {first.line}); keep one")
            found.items[name] = (LiteralNode(name, *self.place(key)), self.value(value, depth + 1))
        return found

    def number(self, tree: Tree) -> float:
        digits = _text(tree).replace("_", "")
        try:
            if digits[:2].lower() in {"0x", "0o", "0b"}:
                return float(int(digits, 0))
            return float("no octal" if _OCTAL.match(digits) else digits)
        except (ValueError, OverflowError):
            raise self.error(tree, f"{digits[:40]!r} is no number that is read here; write it in decimal") from None

    def string(self, tree: Tree) -> str:
        if tree.type == "string" and tree.start_point[0] != tree.end_point[0] and "\\\n" not in _text(tree):
            raise self.error(tree, "this string has no end")
        parts = []
        for one in tree.named_children:
            if one.type == "template_substitution":
                raise self.error(one, "a template with ${...} needs JavaScript; write the value itself")
            parts.append(self.escape(one) if one.type == "escape_sequence" else _text(one))
        try:
            return "".join(parts).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise self.error(tree, "half a character (a lone surrogate) stands in this string") from None

    def escape(self, tree: Tree) -> str:
        kind, code = _text(tree)[1:2], _text(tree)[2:].strip("{}")
        if kind not in {"x", "u"}:
            if kind.isdigit() and _text(tree) != "\\0":
                raise self.error(tree, "an octal escape is not read here; write the character itself")
            return _ESCAPES.get(_text(tree)[1:], _text(tree)[1:])
        try:
            return chr(int(code, 16))
        except (ValueError, OverflowError):
            raise self.error(tree, "this escape is not complete") from None


def _text(tree: Tree) -> str:
    return (tree.text or b"").decode("utf-8")


def _parts(tree: Tree) -> list[Tree]:
    return [one for one in tree.named_children if one.type not in {"comment", "hash_bang_line"}]


def _all(tree: Tree) -> Iterator[Tree]:
    """A tree and all under it, in the order of the text."""
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += reversed(one.children)


def _broken(root: Tree) -> Iterator[Tree]:
    return (one for one in _all(root) if one.is_error or one.is_missing) if root.has_error else iter(())


def _member(tree: Tree, name: str) -> Tree | None:
    """The value of a member of an object, without a look at the others."""
    for pair in _parts(tree) if tree.type == "object" else ():
        key = pair.child_by_field_name("key")
        if key is not None and _text(key) == name:
            return pair.child_by_field_name("value")
    return None


def _changes(tree: Tree) -> Iterator[Tree]:
    """Where `options` are assigned to or handed to a function of Object, but in functions with options of their own."""
    if tree.type in _FUNCTIONS and _has_own_options(tree):
        return
    if tree.type in _CHANGES:
        changed = tree.child_by_field_name(_CHANGES[tree.type])
        if changed is not None and re.match(r"options\b", _text(changed)):
            yield tree
    if tree.type == "call_expression" and re.match(r"(?:Object|Reflect)\s*\.\s*\w+\s*\(\s*options\b", _text(tree)):
        yield tree
    for one in tree.children:
        yield from _changes(one)


def _has_own_options(function: Tree) -> bool:
    declared = (one.child_by_field_name("name") for one in _all(function) if one.type == "variable_declarator")
    parameters = function.child_by_field_name("parameters") or function.child_by_field_name("parameter")
    names = [one for one in declared if one is not None] + ([*_all(parameters)] if parameters is not None else [])
    return OPTIONS in map(_text, names)
