"""The command lines of `gate` that a file prints, held against the parser."""

import contextlib
import io
import re
import shlex

from gates.cli import COMMANDS, parser

SAID = re.compile(rf"(?:^|[`$;(|&\s/\"'])gate ((?:{'|'.join(COMMANDS)})\b(?:[^`|&;\n\"]|\"[^\"\n]*\")*)")


def refused(words: list[str]) -> str:
    """The parser's error message; empty where it accepts the line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parser(*words[:1]).parse_args(words)
    except SystemExit as end:
        return said.getvalue() if end.code else ""
    return ""


def printed(text: str) -> list[list[str]]:
    """Every `gate COMMAND ...` of a text, as words; a line that a backslash continues is one."""
    joined = text.replace("\\\n", " ").replace("\\|", "|")
    return [shlex.split(found[1].split(" #")[0].split(" >")[0]) for found in SAID.finditer(joined)]
