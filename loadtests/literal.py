"""A reader for JavaScript object literals and JSON that keeps where everything stood.

Reads what a person copies out of a k6 script: unquoted keys, three kinds of quotes, comments, trailing commas. Refuses
duplicate keys, and whatever would need a JavaScript engine (calls, spreads, templates with holes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it began (both counted from 1). Arrays hold nodes; objects hold members in order."""

    value: bool | float | str | list[Node] | Members | None
    line: int
    column: int


@dataclass(slots=True)
class Members:
    """The members of an object: key to (node of the key, node of the value)."""

    items: dict[str, tuple[Node, Node]] = field(default_factory=dict)


class LiteralError(ValueError):
    """The text is no literal; `line` and `column` say where that became clear."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


MAX_DEPTH = 32
_SKIP = re.compile(r"(?:\s|\ufeff|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_OPTIONS = re.compile(
    r"(?:export\s+)?(?:const|let|var)\s+[A-Za-z_$][\w$]*\s*(?::\s*[\w$]+\s*)?=|(?:module\.)?exports(?:\.\w+)?\s*="
)
_SCRIPT = re.compile(r"^[ \t]*export\s+(?:const|let|var)\s+options\s*(?::\s*[\w$]+\s*)?=", re.MULTILINE)
_UNICODE = re.compile(r"\{[0-9a-fA-F]{1,6}\}|[0-9a-fA-F]{4}")
_LATIN = re.compile(r"[0-9a-fA-F]{2}")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0", "\n": ""}
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}


def read_literal(text: str) -> Node:
    """Read one value: a literal, `export const options = {...};` (alone or inside a whole script), or bare members
    such as `thresholds: {...},`.

    Raise LiteralError with the place of the first thing that does not fit.
    """
    return _Reader(text).document()


class _Reader:
    """A recursive-descent reader over one text; `at` is the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def document(self) -> Node:
        script = _SCRIPT.search(self.text)
        if script:  # a whole k6 script: its options alone are read
            self.at = script.end()
            return self.value(0)
        self.skip()
        assignment = _OPTIONS.match(self.text, self.at)
        if assignment:
            self.at = assignment.end()
            self.skip()
        line, column = self.place(self.at)
        if self.peek() not in {"{", "["} and not assignment:
            node = Node(self.members(end=""), line, column)
        else:
            node = self.value(0)
        self.skip()
        while self.peek() in {";", ","}:
            self.at += 1
            self.skip()
        if self.at < len(self.text):
            raise self.error("the literal ends here, but there is more text; keep only the options or thresholds block")
        return node

    def place(self, at: int) -> tuple[int, int]:
        line = self.text.count("\n", 0, at) + 1
        return line, at - (self.text.rfind("\n", 0, at) + 1) + 1

    def error(self, message: str, at: int | None = None) -> LiteralError:
        return LiteralError(message, *self.place(self.at if at is None else at))

    def skip(self) -> None:
        found = _SKIP.match(self.text, self.at)
        self.at = found.end() if found else self.at
        if self.text.startswith("/*", self.at):
            raise self.error("this comment has no end; close it with */")

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def value(self, depth: int) -> Node:
        self.skip()
        line, column = self.place(self.at)
        if depth > MAX_DEPTH:
            raise self.error(f"nested deeper than {MAX_DEPTH} levels")
        match self.peek():
            case "{":
                self.at += 1
                return Node(self.members(end="}", depth=depth), line, column)
            case "[":
                return Node(self.array(depth), line, column)
            case "'" | '"' | "`":
                return Node(self.string(), line, column)
            case _:
                return Node(self.word(), line, column)

    def array(self, depth: int) -> list[Node]:
        self.at += 1
        found: list[Node] = []
        while True:
            self.skip()
            if self.peek() == "]":
                self.at += 1
                return found
            found.append(self.value(depth + 1))
            self.separator("]")

    def members(self, *, end: str, depth: int = 0) -> Members:
        found = Members()
        while True:
            self.skip()
            if self.peek() == end or (end and not self.peek()):
                self.expect(end)
                return found
            start = self.at
            line, column = self.place(start)
            key = self.key()
            if key in found.items:
                first = found.items[key][0]
                raise self.error(f"key {key!r} is given twice (first on line {first.line}); keep one", start)
            self.skip()
            self.expect(":")
            found.items[key] = (Node(key, line, column), self.value(depth + 1))
            self.separator(end)

    def key(self) -> str:
        if self.peek() and self.peek() in "'\"":
            return self.string()
        name = _NAME.match(self.text, self.at) or _NUMBER.match(self.text, self.at)
        if not name:
            raise self.error(f"a key was expected, not {self.peek() or 'the end'!r}")
        self.at = name.end()
        return name[0]

    def separator(self, end: str) -> None:
        self.skip()
        if self.peek() == ",":
            self.at += 1
        elif self.peek() != end and not (end == "" and self.peek() == ";"):
            closing = f" or {end!r}" if end else ""
            raise self.error(f"a comma{closing} was expected, not {self.peek() or 'the end'!r}")
        elif self.peek() == ";":
            self.at += 1

    def expect(self, character: str) -> None:
        if not self.text.startswith(character, self.at):
            raise self.error(f"{character!r} was expected, not {self.peek() or 'the end'!r}")
        self.at += len(character)

    def word(self) -> bool | float | None:
        sign = -1.0 if self.peek() == "-" else 1.0
        if self.peek() and self.peek() in "+-":
            self.at += 1
        number = _NUMBER.match(self.text, self.at)
        if number and not _NAME.match(self.text, number.end()):
            self.at = number.end()
            digits = number[0].replace("_", "")
            return sign * (int(digits, 16) if digits[:2] in {"0x", "0X"} else float(digits))
        name = _NAME.match(self.text, self.at)
        if name and name[0] in _WORDS:
            self.at = name.end()
            return _WORDS[name[0]]
        seen = name[0] if name else self.peek() or "the end"
        raise self.error(f"a string, number, true, false, null, array or object was expected, not {seen!r}")

    def string(self) -> str:
        quote, start = self.peek(), self.at
        self.at += 1
        parts: list[str] = []
        while True:
            character = self.peek()
            if not character or (character == "\n" and quote != "`"):
                raise self.error("this string has no end", start)
            if quote == "`" and self.text.startswith("${", self.at):
                raise self.error("a template with ${...} needs JavaScript; write the value itself")
            self.at += 1
            if character == quote:
                return "".join(parts)
            parts.append(self.escape() if character == "\\" else character)

    def escape(self) -> str:
        character = self.peek()
        self.at += 1
        if character in _ESCAPES:
            return _ESCAPES[character]
        if character not in {"x", "u"}:
            return character
        found = _UNICODE.match(self.text, self.at) if character == "u" else _LATIN.match(self.text, self.at)
        code = int(found[0].strip("{}"), 16) if found else -1
        if not found or code > 0x10FFFF:
            raise self.error("this escape is not complete")
        self.at = found.end()
        return chr(code)
