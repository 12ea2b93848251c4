"""Makes characters visible that people cannot see, but that a terminal, a page or a parser obeys.

These are ESC and the other control characters, bidi overrides and isolates, zero width, line separators, tags, blank
letters. Standard library only.
"""

import re

_UNSEEN = (
    "\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202f\u205f-\u206f"
    "\u2800\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_IN_LINE = re.compile(f"[{_UNSEEN}]")
_IN_DOCUMENT = re.compile(rf"(?![\n\t])[{_UNSEEN}]")
_COMMAND = re.compile(r"(?m)^([^\S\n]*+):(?=:)|#(?=#[A-Za-z]*+\[)")
"""CI commands: `::name::` after the start of a line for GitHub Actions, `##[` and `##vso[` anywhere for others."""
_LINE_ENDS = str.maketrans(dict.fromkeys("\t\n\v\f\r\x85\u2028\u2029", " "))


def line(value: object) -> str:
    r"""The value as one line: the ends of lines are spaces, other unseen characters are escapes like \u001b."""
    return _IN_LINE.sub(_escaped, str(value).translate(_LINE_ENDS))


def one_line(text: str, limit: int) -> str:
    """The text with its white space folded, cut to `limit` characters."""
    folded = " ".join(text.split())
    return folded if len(folded) <= limit else folded[: limit - 1] + "…"


def document(text: str) -> str:
    """The text with its lines and tabs; other unseen characters are escaped. JSON keeps its meaning."""
    return _IN_DOCUMENT.sub(_escaped, text)


def log(text: str) -> str:
    """`document` without CI commands: for a file that people view on a terminal."""
    return without_commands(document(text))


def without_commands(text: str, spelled: str = r"\u{:04x}") -> str:
    """The text without commands to a CI system that reads the output. JSON keeps its meaning.
    spelled: how the medium writes a character by its number.
    """
    return _COMMAND.sub(lambda found: f"{found[1] or ''}{spelled.format(ord(found[0][-1]))}", text)


def _escaped(found: re.Match[str]) -> str:
    point = ord(found.group())
    if point < 0x10000:
        return f"\\u{point:04x}"
    high, low = divmod(point - 0x10000, 0x400)  # as JSON spells it
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
