"""Mutants of SQL: a condition or clause is dropped, a comparison changed, a statement of the schema left out. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gates.proof.mutants.statements import Edit

TOKEN = re.compile(
    r"--[^\n]*|'(?:[^']|'')*'|\$\w*\$|%\(\w+\)s|[A-Za-z_][\w.]*|\d+(?:\.\d+)?|<=|>=|<>|!=|:=|::|->>|->|\|\||[^\s]"
)
COMPARED = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "=": "<>", "<>": "="}
OPENS = {"WHERE", "AND", "OR", "WHEN", "IF", "HAVING", "ELSIF"}
"""Words before a condition; it ends at one of these, in the same parentheses."""
ENDS = OPENS | {
    "THEN", "GROUP", "ORDER", "LIMIT", "RETURNING", "FOR", "ON", "UNION", "LEFT", "JOIN", "CROSS", "INNER", "ELSE",
    "END", "LOOP", "WITH", "DO", ";", ",",
}  # fmt: skip
CLAUSE_ENDS = {"LIMIT", "RETURNING", "FOR", "UNION", ";", "ON", "WHERE"}
LEFT_OUT = re.compile(
    r"(?:CREATE (?:UNIQUE )?INDEX|CREATE (?:CONSTRAINT )?TRIGGER|CREATE POLICY|ALTER TABLE|ALTER DEFAULT|GRANT|REVOKE"
    r"|INSERT INTO|ALTER FUNCTION)\b"
)
"""Statements of a schema that the others do not need."""
IN_A_BODY = re.compile(r"(?:PERFORM|RAISE|EXECUTE|UPDATE|INSERT INTO|DELETE|[\w.]+ :=|RETURN NULL)")
IN_A_TABLE = re.compile(
    r" NOT NULL| UNIQUE\b(?: \([^)]*\))?| PRIMARY KEY\b(?! \()| CHECK \((?:[^()]|\([^()]*\))*\)"
    r"| REFERENCES [\w.]+(?: ?\([^)]*\))?(?: ON DELETE \w+)?"
    r"|,?\s*CONSTRAINT \w+ (?:CHECK|UNIQUE|PRIMARY KEY|FOREIGN KEY)"
    r" ?\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)(?: WITH \([^)]*\))?"
)
OF_FUNCTIONS = {
    " SECURITY DEFINER": "",
    " SET search_path = ''": "",
    "security_invoker = true": "security_invoker = false",
    " STRICT": "",
    " ENABLE ALWAYS TRIGGER": " ENABLE TRIGGER",
}


@dataclass(frozen=True, slots=True)
class Token:
    """A token of SQL; word: in capitals; depth: of the parentheses around it."""

    text: str
    start: int
    end: int
    depth: int

    @property
    def word(self) -> str:
        return self.text.upper()


def changes(text: str, *, is_schema: bool) -> Iterator[Edit]:
    """Every change of an SQL file, in no order."""
    tokens = _tokens(text)
    yield from _conditions(tokens)
    yield from _clauses(tokens)
    yield from _values(tokens)
    if is_schema:
        yield from _statements(text, tokens)
        yield from _of_the_schema(text, tokens)


def _tokens(text: str) -> list[Token]:
    found, depth = [], 0
    for match in TOKEN.finditer(text):
        piece = match[0]
        if piece.startswith("--"):
            continue
        depth -= piece == ")"
        found.append(Token(piece, match.start(), match.end(), depth))
        depth += piece == "("
    return found


def _conditions(tokens: Sequence[Token]) -> Iterator[Edit]:
    """Each condition dropped or its comparison changed; each AND and OR swapped."""
    for i, token in enumerate(tokens):
        if not _opens(tokens, i):
            continue
        inside = _until(tokens, i + 1, token.depth, ENDS)
        words = {t.word for t in inside}
        if not inside or "BETWEEN" in words:
            continue
        first, last = inside[0], inside[-1]
        yield Edit("drop", first.start, last.end, "true")
        at_top = [t for t in inside if t.depth == token.depth]
        for one in at_top:
            if one.text in COMPARED:
                kind = "boundary" if one.text in {"<", "<=", ">", ">="} else "compare"
                yield Edit(kind, one.start, one.end, COMPARED[one.text])
            elif one.word == "IS":
                after = tokens[tokens.index(one) + 1]
                new, end = ("IS", after.end) if after.word == "NOT" else ("IS NOT", one.end)
                yield Edit("compare", one.start, end, new)
        if token.word in {"AND", "OR"}:
            yield Edit("and-or", token.start, token.end, "OR" if token.word == "AND" else "AND")


def _opens(tokens: Sequence[Token], i: int) -> bool:
    """Whether a condition follows: also after a join's ON, and in the parentheses of USING and WITH CHECK."""
    token, before = tokens[i], tokens[max(i - 8, 0) : i]
    if token.word == "IF":
        return i + 1 < len(tokens) and tokens[i + 1].word not in {"NOT", "EXISTS", ";"}
    if token.word == "ON":
        return any(t.word == "JOIN" and t.depth == token.depth for t in before)
    if token.text == "(":
        return bool(before) and before[-1].word in {"USING", "CHECK"} and tokens[i + 1].word not in {"(", ")"}
    if token.word == "OR" and tokens[i + 1].word in {"INSERT", "UPDATE", "DELETE", "TRUNCATE"}:  # events of a trigger
        return False
    if token.word == "AND" and any(t.word == "BETWEEN" for t in before[-4:]):
        return False
    return token.word in OPENS


def _until(tokens: Sequence[Token], start: int, depth: int, ends: set[str]) -> list[Token]:
    """The tokens from there to one of the ends in the same parentheses, or to their end."""
    opener = tokens[start - 1]
    depth += opener.text == "("
    found = []
    for token in tokens[start:]:
        if token.depth < depth or (token.depth == depth and (token.word in ends or token.text.startswith("$"))):
            break
        found.append(token)
    return found


def _clauses(tokens: Sequence[Token]) -> Iterator[Edit]:
    """Dropped clauses: conflict handling, locks, orders, limits; and single columns that are set."""
    for i, token in enumerate(tokens):
        after = tokens[i + 1].word if i + 1 < len(tokens) else ""
        match token.word, after:
            case "ON", "CONFLICT":
                yield _without("conflict", token, _until(tokens, i + 1, token.depth, {"RETURNING", ";"}))
            case "FOR", "UPDATE" | "SHARE" | "NO":
                if tokens[i - 1].word not in {"BEFORE", "AFTER", "ALL"} and tokens[max(i - 3, 0)].word != "POLICY":
                    yield _without("lock", token, _until(tokens, i + 1, token.depth, {";"}))
            case "SKIP", "LOCKED":
                yield Edit("lock", token.start, tokens[i + 1].end, "")
            case "ORDER", "BY":
                yield _without("order", token, _until(tokens, i + 1, token.depth, CLAUSE_ENDS))
            case "LIMIT", _:
                yield Edit("limit", token.start, tokens[i + 1].end, "")
            case "DISTINCT" | "DESC", _ if after != "FROM":
                yield Edit("order", token.start, token.end, "")
            case "SET", _ if tokens[max(i - 1, 0)].word != "RETURNS":
                yield from _settings(tokens, i)


def _settings(tokens: Sequence[Token], i: int) -> Iterator[Edit]:
    """Each column of an UPDATE of several left unchanged."""
    items, start = [], i + 1
    while True:
        item = _until(tokens, start, tokens[i].depth, {"FROM", "WHERE", "RETURNING", ";", ",", "ON"})
        if len(item) < 3 or item[1].text != "=":
            return
        items.append(item)
        start += len(item) + 1
        if start - 1 >= len(tokens) or tokens[start - 1].text != ",":
            break
    for item in items if len(items) > 1 else []:
        yield Edit("set", item[2].start, item[-1].end, item[0].text)


def _without(operator: str, token: Token, rest: Sequence[Token]) -> Edit:
    return Edit(operator, token.start, rest[-1].end if rest else token.end, "")


def _values(tokens: Sequence[Token]) -> Iterator[Edit]:
    """Numbers plus one, true and false swapped, min and max swapped."""
    pairs = (("true", "false"), ("least", "greatest"), ("max", "min"), ("bool_or", "bool_and"))
    swapped = {one.upper(): other for pair in pairs for one, other in (pair, pair[::-1])}
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.word in swapped:
            yield Edit("constant", token.start, token.end, swapped[token.word])
        elif token.text.isdigit() and (before is None or before.word not in {"$", "%", "SELECT", "("}):
            yield Edit("constant", token.start, token.end, str(int(token.text) + 1))


def _statements(text: str, tokens: Sequence[Token]) -> Iterator[Edit]:
    """Whole statements dropped, of the file and of the bodies of its functions."""
    start, body = 0, False
    for i, token in enumerate(tokens):
        if token.text.startswith("$") and not token.text[1:-1]:
            body = not body
            start = i + 1
        elif token.word in {"BEGIN", "THEN", "LOOP", "ELSE"} and body:
            start = i + 1
        elif token.text == ";" and i > start:
            said = text[tokens[start].start : token.end]
            if (IN_A_BODY if body else LEFT_OUT).match(said):
                yield Edit("delete", tokens[start].start, token.end, "NULL;" if body else "")
            start = i + 1
        elif token.text == ";":
            start = i + 1


def _of_the_schema(text: str, tokens: Sequence[Token]) -> Iterator[Edit]:
    """Dropped constraints of columns and tables, and properties of functions and views."""
    for match in re.finditer(r"CREATE TABLE [\w.]+ \((.*?)\n\)", text, re.DOTALL):
        for one in IN_A_TABLE.finditer(text, match.start(1), match.end(1)):
            yield Edit("constraint", one.start(), one.end(), "")
    for old, new in OF_FUNCTIONS.items():
        for one in re.finditer(re.escape(old), text):
            if not any(t.start <= one.start() < t.end and t.text.startswith("'") for t in tokens):
                yield Edit("property", one.start(), one.end(), new)
