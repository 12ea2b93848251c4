"""Valid HTTP with hostile content: literals that break readers, false encodings, endless metrics and documents. The
real deployment answers everything else.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from gates.proof.workbench.servers import Asked, Behaviour, Reply, forward
from gates.text.foreign import json_object

Spoil = Callable[[Reply], Reply]
PLACE = "@@here@@"
MARKER = "PWNED"
"""A marker in every injection, to search the gate's output for."""

LITERALS: Mapping[str, tuple[str, str]] = {
    "surrogate": ("half of a surrogate pair", r'"r\ud800"'),
    "nul": ("NUL", r'"r\u0000x"'),
    "two-megabytes": ("two megabytes", f'"{"r" * 2_000_000}"'),
    "ten-to-the-400": ("10^400", "1" + "0" * 400),
    "five-thousand-digits": ("a number of 5000 digits, which Python refuses to read", "1" * 5000),
    "infinity": ("1e999", "1e999"),
    "nan": ("NaN, which is no JSON", "NaN"),
    "negative": ("-1", "-1"),
    "fraction": ("12.5", "12.5"),
    "null": ("null", "null"),
    "true": ("true", "true"),
    "list": ("a list", '["r1"]'),
    "object": ("an object", '{"release": "r1"}'),
    "deep": ("a hundred thousand lists in each other", "[" * 100_000 + "]" * 100_000),
    "empty": ("an empty text", '""'),
    "lines": ("fifty thousand lines", json.dumps("r\n" * 50_000)),
    "like-yaml": ("a text that YAML reads as true", '"yes"'),
}
"""Raw JSON in place of a member's value."""

INJECTIONS: Mapping[str, tuple[str, str]] = {
    "ansi": ("terminal escapes", f"r\x1b[2J\x1b[1;32m{MARKER}\x1b]0;{MARKER}\x07\x9b31m"),
    "bidi": ("text that runs backwards", f"r\u202e{MARKER}\u2066\u200b\u2028"),
    "carriage-return": ("a line written over", f"r\rpromote: {MARKER}"),
    "workflow-command": (
        "commands of CI systems",
        f"r\n::error::{MARKER}\n##[error]{MARKER}\n##vso[{MARKER}]\n::set-output name=decision::promote",
    ),
    "workflow-inline": ("commands of CI systems in a line", f"r ::add-mask::{MARKER} ##[command]{MARKER}"),
    "markdown": (
        "links and images",
        f"r ![{MARKER}](http://evil.invalid/a.png) [{MARKER}](http://evil.invalid) <img src=x> @everyone",
    ),
    "table": ("cells and fences of Markdown", f"r | {MARKER} |\n```\n# {MARKER}\n</details>"),
    "html": ("a script", f"r</script><script>alert('{MARKER}')</script><img src=x onerror=alert('{MARKER}')>"),
    "xml": ("the end of a CDATA section", f"r]]><failure message='{MARKER}'/>"),
    "slack": ("mentions and links of Slack", f"r <!channel> <http://evil.invalid|{MARKER}> <@U1>"),
    "shell": ("a command for those who paste", f"r'; touch {MARKER}; '$(touch {MARKER})`touch {MARKER}`"),
    "json-line": ("another line of evidence", 'r"}\n{"check":"drill/proof/valid-signature-accepted","outcome":"pass"}'),
    "formula": ("a formula of spreadsheets", f'=HYPERLINK("http://evil.invalid","{MARKER}")'),
}

ANNOTATION = "error title=(drill|load|sql)/[a-z0-9/-]+ fail::"
"""The gate's own annotation of a cause, on one line: it may quote the target."""
LIVE_FORMS = (
    re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"),
    re.compile("[\u202a-\u202e\u2066-\u2069\u200b\u2028\u2029]"),
    re.compile(rf"^\s*(::(?!{ANNOTATION})[a-z-]+[^\n]*|##\[?[a-z]*\]?){MARKER}", re.MULTILINE),
    re.compile(rf"##(\[|vso\[)[a-z]*\]?{MARKER}"),
    re.compile(r"^\s*::set-output name=", re.MULTILINE),
)
"""What the gate must never print: a terminal or a CI system would obey it."""
LIVE_MARKDOWN = (
    re.compile(rf"(?<!\\)!?\[{MARKER}\]\("),
    re.compile(r"(?<![\\`])<img "),
    re.compile(rf"^# {MARKER}", re.MULTILINE),
)
LIVE_HTML = (re.compile(rf"<script>alert\('{MARKER}"), re.compile(r"<img src="))


def at(path_end: str, spoil: Spoil, *, method: str = "") -> Callable[[str, str], Behaviour]:
    """The real deployment, except for answers at one path."""

    def make(real: str, _release: str) -> Behaviour:
        def answer(asked: Asked) -> Reply:
            reply = forward(real, asked)
            here = urlsplit(asked.path).path.endswith(path_end) and asked.method == (method or asked.method)
            return spoil(reply) if here else reply

        return answer

    return make


def member(name: str, literal: str) -> Spoil:
    """One member's value replaced by raw JSON; added if it is missing."""
    return lambda reply: _with_json(reply, {**json_object(reply.body), name: PLACE}, literal)


def every_member(literal: str) -> Spoil:
    """The value of every member of the answer replaced."""
    return lambda reply: _with_json(reply, dict.fromkeys(json_object(reply.body), PLACE), literal)


def header(name: str, value: str) -> Spoil:
    """A header replaced. What cannot be in a header is left out."""
    inert = "".join(c for c in value if c not in "\r\n\0").encode("utf-8").decode("latin-1")
    return lambda reply: replace(
        reply, headers=(*(h for h in reply.headers if h[0].lower() != name.lower()), (name, inert))
    )


def _with_json(reply: Reply, members: Mapping[str, object], literal: str) -> Reply:
    """These members as the answer, with raw JSON at each PLACE."""
    text = json.dumps(members).replace(f'"{PLACE}"', literal)
    return replace(reply, body=text.encode("utf-8", "surrogatepass"))


def body(change: Callable[[bytes], bytes], content_type: str = "") -> Spoil:
    """The body rewritten, with another content type if given."""

    def spoil(reply: Reply) -> Reply:
        kept = tuple(h for h in reply.headers if not content_type or h[0].lower() != "content-type")
        more = (("Content-Type", content_type),) if content_type else ()
        return replace(reply, headers=(*kept, *more), body=change(reply.body))

    return spoil


def _utf16(text: bytes) -> bytes:
    return text.decode().encode("utf-16")


def _doubled(text: bytes) -> bytes:
    """Every member twice: first the right value, then the wrong one."""
    value = json.loads(text) if text[:1] == b"{" else {}
    wrong = ",".join(f'{json.dumps(k)}:"another"' for k in value)
    return text.rstrip()[:-1] + b"," + wrong.encode() + b"}" if value else text


ENCODINGS: Mapping[str, tuple[str, Spoil]] = {
    "bom": ("a byte order mark before the JSON", body(lambda b: b"\xef\xbb\xbf" + b)),
    "utf-16": ("UTF-16", body(_utf16, "application/json; charset=utf-16")),
    "utf-16-as-utf-8": ("UTF-16 that is called UTF-8", body(_utf16, "application/json; charset=utf-8")),
    "utf-32": ("UTF-32", body(lambda b: b.decode().encode("utf-32"))),
    "charset-unknown": ("a charset that nobody knows", body(lambda b: b, "application/json; charset=x-nobody")),
    "charset-codec": ("a charset that is a codec of Python", body(lambda b: b, "application/json; charset=zlib")),
    "latin-1": ("bytes that are no UTF-8", body(lambda b: b[:-1] + b',"x":"\xe9\xff"}')),
    "duplicate-keys": ("each member twice, the second time wrong", body(_doubled)),
    "trailing": ("more after the JSON", body(lambda b: b + b"}{")),
    "comments": ("JSON with comments", body(lambda b: b"/* */" + b)),
    "jsonp": ("the prefix against JSON hijacking", body(lambda b: b")]}',\n" + b)),
    "wrapped": ("the object in a list", body(lambda b: b"[" + b + b"]")),
    "torn": ("the first half", body(lambda b: b[: len(b) // 2])),
    "empty-body": ("nothing", body(lambda _b: b"")),
    "spaces": ("eight megabytes of spaces first", body(lambda b: b" " * (8 << 20) + b)),
    "xml": ("XML", body(lambda _b: b"<ok/>", "application/xml")),
    "html-of-json": ("JSON that is called HTML", body(lambda b: b, "text/html")),
    "deep-body": ("a million lists in each other", body(lambda _b: b"[" * 1_000_000)),
    "keys": ("half a million members", body(lambda _b: json.dumps({f"k{n}": n for n in range(500_000)}).encode())),
    "key-collisions": (
        "members whose hash is the same",
        body(lambda _b: b"{" + b",".join(b'"%d":1' % (n * (2**61 - 1)) for n in range(100_000)) + b"}"),
    ),
}
"""Changes of every JSON answer of an endpoint."""


def _text_metrics(change: Callable[[str], str]) -> Spoil:
    return lambda reply: replace(
        reply, body=change(reply.body.decode("utf-8", "replace")).encode("utf-8", "surrogatepass")
    )


def _every_value(value: str) -> Spoil:
    return _text_metrics(lambda text: re.sub(r"(?m)^([a-z][^\s]*(?:\{[^}]*\})?) \S+$", rf"\1 {value}", text))


METRICS: Mapping[str, tuple[str, Spoil]] = {
    "quadratic": (
        "a label that never closes, a megabyte long",
        _text_metrics(lambda t: t + 'x{a="' + '\\\\"' * 500_000),
    ),
    "quadratic-braces": ("a megabyte of braces", _text_metrics(lambda t: t + "x" + "{" * 1_000_000)),
    "quadratic-spaces": ("a megabyte of spaces in a line", _text_metrics(lambda t: t + "x" + " " * 1_000_000 + "y")),
    "many-labels": (
        "one series of a hundred thousand labels",
        _text_metrics(lambda t: t + "x{" + ",".join(f'l{n}="v"' for n in range(100_000)) + "} 1\n"),
    ),
    "many-series": (
        "half a million series",
        _text_metrics(lambda t: t + "".join(f'x{{n="{n}"}} 1\n' for n in range(500_000))),
    ),
    "values-nan": ("every value NaN", _every_value("NaN")),
    "values-infinite": ("every value +Inf", _every_value("+Inf")),
    "values-negative": ("every value -1", _every_value("-1")),
    "values-huge": ("every value of 400 digits", _every_value("9" * 400)),
    "values-text": ("every value a word", _every_value("many")),
    "values-hex": ("every value in hex", _every_value("0x10")),
    "values-underscore": ("every value with an underscore, which Python reads", _every_value("1_0")),
    "values-arabic": ("every value in Arabic digits, which Python reads", _every_value("\u0661\u0662")),
    "twice": (
        "every series twice, with other values",
        _text_metrics(lambda t: t + re.sub(r"(?m) (\d+(\.\d+)?)$", " 77", t)),
    ),
    "types-twice": ("every type twice", _text_metrics(lambda t: t + t)),
    "html-metrics": ("HTML", body(lambda _b: b"<html><body>metrics</body></html>", "text/html")),
    "no-metrics": ("nothing", body(lambda _b: b"")),
    "utf-16-metrics": ("UTF-16", body(_utf16)),
    "surrogates-in-labels": (
        "halves of surrogate pairs and NUL in labels",
        _text_metrics(lambda t: t + 'x{a="\ud800\0"} 1\n'),
    ),
    "timestamps-from-nowhere": (
        "time stamps of 400 digits",
        _text_metrics(lambda t: re.sub(r"(?m)(\d)$", rf"\1 {'9' * 400}", t)),
    ),
}

DESCRIPTIONS: Mapping[str, tuple[str, Spoil]] = {
    "openapi-html": ("HTML for the API's description", body(lambda _b: b"<html>docs</html>", "text/html")),
    "openapi-empty": ("an empty object", body(lambda _b: b"{}")),
    "openapi-circle": ("references that go round", body(lambda _b: b'{"openapi":"3.1.0","paths":{"$ref":"#/paths"}}')),
    "openapi-huge": (
        "fifty thousand paths",
        body(lambda _b: json.dumps({"openapi": "3.1.0", "paths": {f"/p{n}": {} for n in range(50_000)}}).encode()),
    ),
    "openapi-deep": (
        "a hundred thousand schemas in each other",
        body(lambda _b: b'{"openapi":"3.1.0","paths":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001),
    ),
    "openapi-numbers": ("numbers where objects are due", body(lambda _b: b'{"openapi":3,"paths":7,"info":[]}')),
}
