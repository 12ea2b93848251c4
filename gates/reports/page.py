"""The frame of every page: one self-contained file without network access, with its own style and script only. Pure."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from gates.text.inert import Html
from gates.text.quantity import with_unit

STYLE, SCRIPT = (Path(__file__).with_name(f"page.{kind}") for kind in ("css", "js"))
NOTHING = Html("")


def document(title: str, header: Html, body: Html, *styles: Path, scripted: bool = True) -> Html:
    """A page whose policy (CSP) holds the hashes of its style and script, or forbids scripts. styles: in addition to
    the common one. scripted: whether it has checks to filter or text to copy.
    """
    style, code = Html.packaged(STYLE, *styles), Html.packaged(SCRIPT)
    element = Html("<script>{}</script>\n").format(code) if scripted else NOTHING
    allowed = code.csp_hash() if scripted else Html("'none'")
    return Html(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src {}; script-src {}; '
        "base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{}</title>\n'
        "<style>{}</style>\n</head>\n<body>\n{}\n<main>\n{}</main>\n{}</body>\n</html>\n"
    ).format(style.csp_hash(), allowed, title, style, header, body, element)


def section(title: str, *parts: Html) -> Html:
    """A part of a page under its heading; nothing if it is empty."""
    body = NOTHING.join(parts)
    return Html("<section><h2>{}</h2>\n{}</section>\n").format(title, body) if body else NOTHING


def outcome(name: str) -> Html:
    """An outcome as glyph and word. The style draws the glyph, so it is not part of the text."""
    return Html('<span class="outcome {}">{}</span>').format(name.replace(" ", "-"), name)


def copied(text: str, what: str) -> Html:
    button = Html('<button type="button" class="copy" aria-label="copy {}">copy</button>').format(what)
    return Html('<div class="copied">{}<pre tabindex="0">{}</pre></div>').format(button, text) if text else NOTHING


def listing(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table; on a narrow screen each row shows one titled cell beneath the other."""
    head = NOTHING.join(Html("<th>{}</th>").format(title) for title in titles)
    cell = Html('<td data-title="{}">{}</td>')
    body = NOTHING.join(
        Html("<tr>{}</tr>").format(NOTHING.join(cell.format(*pair) for pair in zip(titles, row, strict=True)))
        for row in rows
    )
    return Html('<table class="rows"><tr>{}</tr>{}</table>').format(head, body) if body else NOTHING


def tools(count: int, outcomes: Sequence[str]) -> Html:
    """The filter over the checks of a page."""
    boxes = NOTHING.join(
        Html('<label><input type="checkbox" value="{}" checked> {}</label>').format(name, outcome(name))
        for name in outcomes
    )
    return Html(
        '<div class="tools" role="search"><label class="find">Filter {} '
        '<input type="search" placeholder="words, outcome:unknown, cause:preflight" aria-describedby="found"></label>'
        '<span>{}</span><output id="found" aria-live="polite"></output></div>\n'
    ).format(with_unit(count, "checks"), boxes)
