"""Output text, with one type for each medium. A value is escaped when it is put into such text.

`Html("<p>{}</p>").format(answer)` escapes the answer: anything that is not text of the medium is foreign, whoever wrote
it. Only literals may be given to the constructors; a test reads the syntax trees. Writers accept only these types.
"""

import base64
import hashlib
import html
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from markupsafe import Markup

from gates.text import characters


class Inert(Markup):
    """Text of one medium. `format`, `join` and `+` pass on text of the same medium and escape everything else."""

    __slots__ = ()

    @classmethod
    def escape(cls, s: Any, /) -> Self:
        return s if isinstance(s, cls) else cls(cls.escaped(str(s)))

    @classmethod
    def escaped(cls, text: str) -> str:
        """Foreign text, shown by the medium without effect."""
        raise NotImplementedError

    @classmethod
    def prose(cls, text: str) -> Self:
        """A sentence from the project's own data; text between two backticks is code."""
        return cls.escape(text)

    @classmethod
    def of_lines(cls, lines: Iterable[str]) -> Self:
        """Each text as one line."""
        return cls("").join(cls("{}\n").format(line) for line in lines)

    def __html_format__(self, format_spec: str, /) -> Self:
        return type(self)(format(str(self), format_spec))


class Terminal(Inert):
    """Lines for a terminal, whose output a CI system may read for workflow commands (see gates.reports.console)."""

    __slots__ = ()

    @classmethod
    def escaped(cls, text: str) -> str:
        return characters.line(text)

    @classmethod
    def document(cls, text: str) -> Self:
        """JSON, a report or a log, with its own lines."""
        return cls(characters.document(text))


class Html(Inert):
    """Elements and attribute values in double quotes."""

    __slots__ = ()

    @classmethod
    def escaped(cls, text: str) -> str:
        return characters.without_commands(html.escape(characters.document(text), quote=True), "&#x{:x};")

    @classmethod
    def packaged(cls, *files: Path) -> Self:
        """Style and script shipped with the reports."""
        return cls("".join(f.read_text(encoding="utf-8") for f in files))

    @classmethod
    def prose(cls, text: str) -> Self:
        """Also for foreign text: it is escaped, and code is a harmless element."""
        parts = _spans(cls.escape(text))
        return cls("").join(cls("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(parts))

    def csp_hash(self) -> Self:
        """How a Content-Security-Policy names this text."""
        return type(self)(f"'sha256-{base64.b64encode(hashlib.sha256(self.encode()).digest()).decode()}'")


_WORD = r"\(?[A-Za-z0-9]+(?:(?:[_']|-(?=[A-Za-z]))[A-Za-z0-9]+)*\)?[.,;]?"
_WORDS = re.compile(rf"(?![0-9]+[.)]){_WORD}(?: (?:{_WORD}|%))*|[0-9]+\.[0-9]+")
"""Plain sentences and numbers without meaning to Markdown and Slack: no list, link, issue or domain."""


class Markdown(Inert):
    """GitHub's Markdown. A foreign text is a `<code>` element, in which no mentions, issues and emoji are recognised,
    and punctuation of Markdown is a character reference, which opens and closes nothing.
    """

    __slots__ = ()
    _ACTIVE = re.compile(
        r"""[&<>"`*|~\\\[\]@#$^{}]|:(?=\S)|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=www)\.""", re.IGNORECASE
    )

    @classmethod
    def escaped(cls, text: str) -> str:
        shown = cls._ACTIVE.sub(lambda found: f"&#{ord(found.group())};", characters.line(text).strip())
        return shown if not shown or _WORDS.fullmatch(shown) else f"<code>{shown}</code>"

    @classmethod
    def prose(cls, text: str) -> Self:
        """For our own text, which need not be code: its markup is a character reference."""
        parts = [
            cls._ACTIVE.sub(lambda found: f"&#{ord(found.group())};", part)
            for part in _spans(characters.line(text).strip())
        ]
        return cls("".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts)))

    @classmethod
    def row(cls, cells: Iterable[object]) -> Self:
        return cls("| {} |").format(cls(" | ").join(cls.escape(c) for c in cells))

    @classmethod
    def block(cls, text: str, language: str = "") -> Self:
        """A fenced block, whose fence is longer than any in the text."""
        longest = max(map(len, re.findall("`+", text)), default=0)
        fence = "`" * max(3, longest + 1)
        return cls(f"{fence}{language}\n{characters.log(text)}\n{fence}")


class Slack(Inert):
    """Slack's mrkdwn. A foreign text is code, in which mentions, channels, links and emoji do nothing."""

    __slots__ = ()
    _TICK, _QUOTE = "`", "'"

    @classmethod
    def escaped(cls, text: str) -> str:
        shown = html.escape(characters.line(text).strip().replace(cls._TICK, cls._QUOTE), quote=False)
        return shown if not shown or _WORDS.fullmatch(shown) else f"`{shown}`"

    @classmethod
    def prose(cls, text: str) -> Self:
        """For our own text, which need not be code."""
        parts = [html.escape(part, quote=False) for part in _spans(characters.line(text).strip())]
        return cls("".join(f"`{part}`" if index % 2 else part for index, part in enumerate(parts)))

    @classmethod
    def block(cls, text: str) -> Self:
        return cls(f"```{html.escape(characters.log(text.replace(cls._TICK, cls._QUOTE)), quote=False)}```")

    def cut(self, most: int) -> Self:
        """About so many characters at most; code in it stays code."""
        if len(self) <= most:
            return self
        kept = re.sub(r"&[a-z]*$", "", str(self[:most]))
        end = "```" if kept.count("```") % 2 else "`" if kept.count("`") % 2 else ""
        return type(self)(f"{kept}…{end}")


def _spans(text: str) -> list[str]:
    """Prose and code in turn; an unmatched backtick is prose."""
    parts = text.split("`")
    return parts if len(parts) % 2 else [text]


def xml(value: object) -> str:
    """Text that XML 1.0 can hold; ElementTree escapes its markup."""
    return characters.log(str(value))


def workflow(text: str, also: str = "") -> str:
    """A value of a GitHub workflow command, on one line. also: characters that end a property, to be escaped."""
    return "".join(f"%{ord(c):02X}" if c in "%\n" + also else c for c in characters.log(text))
