"""Hostile text in every field of every report stays inert when a real parser reads it."""

import base64
import hashlib
import html.parser
import json
import re
import time
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from gates import reports
from gates.evidence import CheckSpec, Evidence, JsonValue, Outcome, Severity, Where
from gates.text import stream
from gates.text.inert import Html, Markdown, Slack, Terminal, workflow
from gates.watch import html as watch_html
from gates.watch import text as watch_text
from gates.watch.incidents import WatcherHealth
from gates.watch.rounds import Change, Incident, Reading, Round
from gates.watch.view import WatchView
from tests.gates.hostile_text import ALL
from tests.gates.reports.test_console import hostile_verdict
from tests.gates.watch.test_watch_reports import NOW

TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "script", "div", "h1", "h2", "h3"),
    *("p", "pre", "span", "b", "br", "ul", "li", "table", "tr", "td", "th", "details", "summary", "i", "em", "code"),
    *("small", "label", "input", "svg", "rect", "line", "polyline", "circle", "text"),
    *("section", "article", "a", "button", "output", "figure", "figcaption", "dl", "dt", "dd"),
}
ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "class", "open", "data-outcome", "type", "value", "checked"),
    *("placeholder", "viewbox", "preserveaspectratio", "aria-hidden", "aria-label", "role"),
    *("x", "y", "width", "height"),
    *("x1", "x2", "y1", "y2", "cx", "cy", "r", "points", "text-anchor"),
    *("id", "href", "tabindex", "aria-live", "aria-describedby", "data-filter", "data-cause"),
}


class Page(html.parser.HTMLParser):
    """What a browser would make of a document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.addresses: list[str] = []
        self.policy = ""
        self.texts: dict[str, str] = {"script": "", "style": ""}
        self._in = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._in = tag
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [value or "" for name, value in attrs if name in {"href", "id"}]
        if ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._in = "" if tag else self._in

    def handle_data(self, data: str) -> None:
        if self._in in self.texts:
            self.texts[self._in] += data


COMMAND = r"(?m)^\s*::|##[A-Za-z]*\["
"""What a CI system obeys in printed text."""


def seen(text: str) -> bool:
    """Whether people can see every character of it."""
    return all(c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in text)


def hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def rendered(text: str) -> dict[str, str]:
    verdict = hostile_verdict(text)
    spec = CheckSpec(text, text, text, Severity.PAGE, Where.READ_ONLY)
    other = CheckSpec(f"{text}/x", text, text, Severity.PAGE, Where.READ_ONLY)
    seen = [Evidence(other.id, Outcome.PASS, text, text, text, text, 1, text, 1.0, text, text), *pictured(text)]
    drawn = tuple(CheckSpec(e.check, text, text, Severity.PAGE, Where.READ_ONLY) for e in seen[1:])
    run: dict[str, JsonValue] = {
        "run_id": text,
        "gate": text,
        "stages": [{"stage": text, "seconds": 1, "error": text}],
        "proof": {"sentence": text},
        "past": [{"decision": text, "release": text, "finished_at": text, "after": text}, {"after": 3}, text],
    }
    kinds = ("html", "markdown", "junit", "slack")
    return {kind: reports.render(kind, verdict, seen, (spec, other, *drawn), run) for kind in kinds}


def pictured(text: str) -> list[Evidence]:
    """The data of the charts, hostile in every text and among the numbers."""
    told = dict.fromkeys(("p50", "p100", "samples"), text)
    trend: dict[str, JsonValue] = {"steps": [1.0, text, 2.0, 3.0], "p95": 2.0, **told}
    series: list[JsonValue] = [[0, 1], [1, 2], [2, text], [3, 0], text]
    details: dict[str, JsonValue] = {"limits": {text: 5.0, "page": text}, "runbook": text, "low": text, "high": 9}
    load: dict[str, JsonValue] = {
        "latency": {**trend},
        "outbox_lag": {**trend},
        "timeline": [{"second": n, "requests": n, "failed": text, "p95": 1.0} for n in range(4)],
    }
    return [
        Evidence("load/run-valid", Outcome.PASS, samples=1, details=load),
        Evidence("watch/outbox-backlog", Outcome.PASS, samples=4, details={"samples": series}),
        *(
            Evidence(check, Outcome.PASS, text, 2.0, 5.0, text, 9, details=details)
            for check in (f"alert/{text}", "load/http_req_duration/p95", f"load/http_req_duration/p{text}")
        ),
    ]


def watched(text: str) -> dict[str, str]:
    """The reports of a watch with hostile text everywhere."""
    at = NOW.isoformat()
    readings = {
        n: Reading(n, Outcome.FAIL, "rollback", message=text, value=v, limits=((text, 5.0),), unit=text)
        for n, v in ((text, 1.0), (f"alert/{text}", 2.0))
    }
    incident = Incident(text, "failing", "page", at, at, 3, 3, firing=True, message=text)
    change = Change("failing", text, "page", text, at)
    made = [
        Round(
            i, at, at, text, "failing", text, text, 300.0, readings=readings, incidents=(incident,), changes=(change,)
        )
        for i in (1, 2)
    ]
    specs = {n: CheckSpec(n, text, text, Severity.PAGE, Where.READ_ONLY) for n in readings}
    view = WatchView(tuple(made), made[-1], NOW, WatcherHealth(said=text), place=text, odd=text, total=2, specs=specs)
    slack = watch_text.slack(made[-1], (change,))
    told = {"history": made[-1].line(), "json": watch_text.to_json(view)}
    return {"html": watch_html.html(view), "markdown": watch_text.markdown(view), "slack": slack, **told}


@pytest.mark.parametrize("text", ALL, ids=range(len(ALL)))
def test_no_report_and_no_annotation_quotes_a_command_to_a_pipeline(text: str) -> None:
    """A job that prints a report, or an annotation that quotes a target, gives its CI system no command."""
    for made in (*rendered(text).values(), *watched(text).values(), workflow(text, also=":,")):
        assert not re.search(COMMAND, made)


@pytest.mark.parametrize("text", ALL, ids=range(len(ALL)))
def test_a_page_has_our_elements_alone_and_runs_our_script_alone(text: str) -> None:
    """No element, attribute or address comes from a run; the policy names script and style by their hashes."""
    for render in (rendered, watched):
        _examine_page(Page(render(text)["html"]))
        assert seen(render(text)["html"])
    assert {"svg", "polyline", "text", "figure"} <= set(
        Page(rendered(text)["html"]).tags
    )  # the pictures are attacked, too


def _examine_page(hostile: Page) -> None:
    assert set(hostile.tags) <= TAGS
    assert hostile.attributes <= ATTRIBUTES
    assert all(re.fullmatch(r"#?[A-Za-z0-9%/._~-]*", address) for address in hostile.addresses)
    assert hostile.tags.count("script") == hostile.tags.count("style") == 1
    assert "unsafe" not in hostile.policy
    assert f"script-src {hash_of(hostile.texts['script'])};" in hostile.policy
    assert f"style-src {hash_of(hostile.texts['style'])};" in hostile.policy


@pytest.mark.parametrize("text", ALL, ids=range(len(ALL)))
def test_markdown_has_no_link_no_image_no_element_and_no_block_of_a_run(text: str) -> None:
    """Rendered by CommonMark with GitHub's tables: the tokens are those of a harmless text."""
    for render in (rendered, watched):
        _examine_markdown(render("x-y")["markdown"], render(text)["markdown"])


def _examine_markdown(plain: str, source: str) -> None:
    renderer = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    shapes = []
    for one in (plain, source):
        tokens = renderer.parse(one)
        inner = [t for token in tokens for t in (token.children or [])]
        assert not {"link_open", "image", "softbreak", "em_open", "s_open"} & {t.type for t in inner}
        elements = {t.content for t in (*inner, *tokens) if t.type in {"html_inline", "html_block"}}
        shapes.append({t.type for t in tokens})
        assert {re.sub(r"<summary>.*</summary>", "", e, flags=re.DOTALL).strip() for e in elements} <= {
            *("<code>", "</code>", "<details>", "</details>")
        }
    assert shapes[0] == shapes[1]
    assert seen(source)
    prose = re.sub(r"^(`{3,}).*?^\1$", "", source, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"@[a-z]|(?<!&)#\d|://|www\.|!\[|\]\(|<script|<img", prose)


@pytest.mark.parametrize("text", ALL, ids=range(len(ALL)))
def test_xml_is_well_formed_and_has_our_elements_alone(text: str) -> None:
    """A parser reads it, and finds elements of reports alone."""
    tree = ET.fromstring(rendered(text)["junit"])  # noqa: S314  -- our own text
    ours = {"testsuites", "properties", "property", "testsuite", "testcase", "failure", "error", "skipped"}
    assert {e.tag for e in tree.iter()} <= ours
    assert seen(rendered(text)["junit"])


@pytest.mark.parametrize("text", ALL, ids=range(len(ALL)))
def test_slack_mentions_nobody_and_links_nothing(text: str) -> None:
    """No raw angle bracket or ampersand is left, texts are code, and URLs are not turned into links."""
    for render in (rendered, watched):
        _examine_slack(json.loads(render(text)["slack"]))


def _examine_slack(message: dict[str, Any]) -> None:
    assert message["unfurl_links"] is False
    texts = [message["text"]]
    for block in message["blocks"]:
        for part in (block.get("text"), *block.get("elements", [])):
            if part:
                assert part["verbatim"] is True
                texts.append(part["text"])
    for shown in texts:
        assert "<" not in shown
        assert ">" not in shown
        assert not re.search(r"&(?!amp;|lt;|gt;)", shown)
        outside = re.sub(r"```[^`]*```|`[^`\n]*`", "", shown)
        assert not re.search(r"[@#]|://|evil|channel|rotating_light:(?! )", outside.replace(":rotating_light: ", ""))
        assert seen(shown)


@pytest.mark.parametrize("text", ALL, ids=range(len(ALL)))
def test_allure_and_github_get_inert_values(text: str, tmp_path: Path) -> None:
    """Every text of an Allure result can be seen, and none is a command; an output of the step stays one line."""
    verdict = hostile_verdict(text)
    output = tmp_path / "output"
    environ = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    reports.write(tmp_path, verdict, [], (), {}, environ, print)
    written = [p.read_text(encoding="utf-8") for p in (tmp_path / "allure-results").iterdir()]
    assert not any(re.search(COMMAND, one) for one in written)
    (file,) = (tmp_path / "allure-results").glob("*-result.json")
    result = json.loads(file.read_text(encoding="utf-8"))
    assert seen("".join(map(str, (result["name"], result.get("description", ""), result["statusDetails"]["message"]))))
    assert "http" not in re.sub("<code>.*?</code>", "", result.get("description") or "")
    plain = reports.outputs(hostile_verdict("x"))
    told = output.read_text(encoding="utf-8")
    assert [p.partition("=")[0] for p in told.split("\n")] == [p.partition("=")[0] for p in plain.split("\n")]
    assert re.split(r"[\r\v\f\x85\u2028\u2029]", told) == [told]


@pytest.mark.parametrize("write", [stream.shown, *(kind.escape for kind in (Html, Markdown, Slack, Terminal))])
@pytest.mark.parametrize("unit", ["\n", " ", "\t:", "#A", "`", "a_", "(a ", "\u202e"])
def test_no_text_takes_long_to_be_made_inert(unit: str, write: Callable[[Any], object]) -> None:
    """The time grows linearly with the length of the text."""
    began = time.process_time()
    write(Terminal(unit * 40_000) if write is stream.shown else unit * 40_000)
    assert time.process_time() - began < 2.0
