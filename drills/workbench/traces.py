"""Finds stack traces, connection strings and texts of PostgreSQL in the body of an answer, as text or in JSON."""

import re

from gates.text.foreign import text

_SIGNS = re.compile(
    rb"Traceback \(most recent|File \"[/<]|psycopg|SQLSTATE|asyncpg|node_modules|\.py\"|goroutine \d"
    # a frame with its line: Node.js, Java, .NET
    rb"|\n\s+at [^\n]*:(?:line )?\d+"
    # a place in a source file: Go, PHP, Ruby and the rest; Perl
    rb"|[/\\][\w.@-]+\.(?:py|[cm]?[jt]s|rb|go|java|kt|php|cs|rs|exs?|lua|cr)(?::|\()\d+"
    rb"|\.(?:p[lm]|t) line \d+\.?\s"
    # PostgreSQL's context lines: the place, the statement, the row
    rb"|\bLINE \d+: |CONTEXT:\s+(?:while|SQL|PL/pgSQL) "
    rb"|PL/pgSQL function \S+ line \d|Failing row contains \(|Key \([^()]+\)=\("
    # PostgreSQL's errors about objects and statements
    rb"|\bpermission denied for (?:table|view|schema|function|sequence) "
    rb"|\b(?:relation|column) \"[^\"]*\" (?:does not exist|of relation|violates)"
    rb"|\bviolates (?:check|unique|foreign key|not-null|exclusion) constraint|\bsyntax error at or near "
    rb"|\bcanceling statement due to "
    # the begin of a connection string, which is no secret
    rb"|\b(?:postgres(?:ql)?|mysql|mongodb(?:\+srv)?|rediss?|amqps?)://|\bpassword="
)
_ESCAPED = ((b"\\n", b"\n"), (b"\\t", b"\t"), (b'\\"', b'"'), (b"\\/", b"/"), (b"\\u003c", b"<"), (b"\\\\", b"\\"))


def traces_in(body: bytes) -> list[str]:
    """The signs of the service's insides that a body shows. JSON escapes line ends and quotes."""
    plain = body
    for escaped, meant in _ESCAPED:
        plain = plain.replace(escaped, meant)
    found = {text(m.group().strip(), 80) for m in _SIGNS.finditer(body + b"\n\n" + plain)}
    return sorted(found)
