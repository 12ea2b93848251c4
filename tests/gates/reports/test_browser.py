"""report.html in a real browser: what people see and can do there. Skipped where no Chromium is found."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from gates.errors import CannotWork
from gates.evidence import JsonValue
from gates.reports import history
from gates.reports.pdf import NAMES, chromium, write_pdf
from gates.watch import html as watch_html
from tests.cases import rows
from tests.gates.operator.test_history_command import runs
from tests.gates.reports.report_pages import CATALOGUE, KEYS, RELEASE, large, pages
from tests.gates.watch.test_watch_reports import view

COUNT = len(CATALOGUE)
PAGES = f"""
promote | promote | kept its promises: all {COUNT} required checks passed | went from 10 % to 50 % | Let it bake
hold | hold | 1 of {COUNT} checks saw nothing to judge by | outbox.enabled stays at 10 % | run the gate again
rollback | rollback | broke one promise (idempotency keys) | went from 50 % to off | ADD UNIQUE
unreachable | hold | nothing answers at BASE_URL: connection refused | stays at 10 % | See that the service runs
wrong-secret | hold | refuses what TRANSBOT_HMAC_SECRET signs: 401 | stays at 10 % | Set the variable to a
unknowns | hold | The first of 300 causes | stays at 10 % | and 299 more conditions
cohort | rollback | to the 10 % of tenants that had it | went from 10 % to off | log of the
baseline | hold | Users wait longer than before | stays at 10 % | run the gate
interrupted | hold | could not be judged | No flag was changed | See to the cause, and run the gate again
alert | hold | broke one promise (the transactional outbox) | outbox.enabled stays at 10 % | Follow the alert's runbook
still-on | rollback | THE FLAG IS STILL ON | The rollback was not carried out | Run the SQL below by hand
"""
"""Of each page the decision, what happened, what was done, what to do now."""
GOLDEN = {name: said for name, *said in rows(PAGES)}
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
MOST_PRINTED = 12


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium: nothing is downloaded."""
    found = chromium()
    if found is None:
        pytest.skip(f"no {', '.join(NAMES)} in PATH: install Debian's chromium to see the pages in a browser")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every page as a file, which is how people open it."""
    made = tmp_path_factory.mktemp("pages")
    for name, text in pages().items():
        (made / f"{name}.html").write_text(text, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Page:
    """One tab for all tests, each of which loads its page anew: opening a tab is slow."""
    return browser.new_context().new_page()


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """A tab that fails the test on any request but for the file, and on any script error."""
    asked: list[str] = []
    errors: list[str] = []
    listeners: dict[str, Callable[[Any], None]] = {
        "request": lambda request: asked.append(request.url),
        "pageerror": lambda error: errors.append(str(error)),
        "console": lambda said: errors.append(said.text) if said.type == "error" else None,
    }
    for event, listener in listeners.items():
        tab.on(event, listener)  # type: ignore[call-overload]  # one overload an event
    yield tab
    tab.emulate_media(color_scheme="light", media="screen")
    tab.set_viewport_size(DESKTOP)
    tab.goto("about:blank")
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
    assert all(url.startswith("file://") and url.partition("#")[0].endswith(".html") for url in asked)
    assert not errors


def opened(page: Page, folder: Path, name: str, anchor: str = "") -> Page:
    page.goto(f"file://{folder}/{name}.html{anchor}")
    return page


def broken_rules(page: Page, **options: object) -> list[tuple[str, str]]:
    """The axe-core rules that are broken, each with its first place; at least one rule must have been checked."""
    response = Axe().run(page, options=options).response
    assert response["passes"]
    return [(v["id"], v["nodes"][0]["html"][:200]) for v in response["violations"]]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_first_screen_says_what_happened_what_was_done_and_what_to_do(page: Page, folder: Path, name: str) -> None:
    """The words a release manager reads in ten seconds, without scrolling; a phone shows all, not scrolled sideways."""
    header = opened(page, folder, name).locator("header")
    assert page.locator("h1").inner_text() == GOLDEN[name][0]
    said = header.inner_text().replace("\N{NO-BREAK SPACE}", " ")
    assert [word for word in GOLDEN[name] if word not in said] == []
    box = page.locator(".brief").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < DESKTOP["height"]
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    beyond = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth).length"
    assert page.evaluate(beyond) == 0


@pytest.mark.parametrize("name", ["promote", "rollback", "cohort"])
def test_no_rule_of_accessibility_is_broken(page: Page, folder: Path, name: str) -> None:
    """axe-core finds nothing: names, roles, contrast, order of headings; contrast in light and in dark."""
    assert broken_rules(opened(page, folder, name)) == []
    page.emulate_media(color_scheme="dark")
    assert broken_rules(page, runOnly=["color-contrast"]) == []


STEP: dict[str, JsonValue] = {
    "created_at": "2026-01-02T11:00:00+00:00",
    "action": "flag_rolled_back",
    "actor": "gate:ann",
    "release": RELEASE,
    "before": 50,
    "after": 0,
    "reason": "the numbers were bad since the morning",
}


@pytest.mark.parametrize(
    "render",
    [lambda: history.page([history.TargetHistory("0123", runs(9), [STEP])]), lambda: watch_html.html(view())],
    ids=["history", "watch"],
)
def test_the_other_pages_break_no_rule_either(page: Page, tmp_path: Path, render: Callable[[], str]) -> None:
    """`gate history --html`, `gate watch`: axe finds nothing, the trends are lines, and a phone shows all of it."""
    (tmp_path / "other.html").write_text(render(), encoding="utf-8")
    assert broken_rules(opened(page, tmp_path, "other")) == []
    assert page.locator(".spark polyline").first.evaluate("e => getComputedStyle(e).fill") == "none"
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("name", ["rollback", "unreachable"])
def test_a_print_has_the_verdict_its_colours_and_a_few_pages(page: Page, folder: Path, name: str) -> None:
    """In print each group of checks is one line, buttons are hidden, and bars keep their colours."""
    printed = opened(page, folder, name).pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type ?/Page\b", printed)) <= MOST_PRINTED
    page.emulate_media(media="print")
    assert not page.locator(".tools").is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.bar')).printColorAdjust") == "exact"


def test_outcomes_are_words_with_a_glyph(page: Page, folder: Path) -> None:
    """A failure and a pass differ in words, not in colour alone."""
    opened(page, folder, "rollback")
    glyph = "e => getComputedStyle(e, '::before').content"
    shown = {word: page.locator(f".outcome.{word}").first.evaluate(glyph) for word in ("pass", "fail", "unknown")}
    assert len({*shown.values()} - {"none", "normal"}) == 3
    assert page.locator("article .outcome").first.inner_text() == "fail"


def test_the_filter_understands_words_outcomes_and_causes_by_keyboard(page: Page, folder: Path) -> None:
    """`/` goes to the filter, Escape ends it; `outcome:` and `cause:` are understood; what is shown is said."""
    opened(page, folder, "unreachable")
    page.keyboard.press("/")
    page.keyboard.type("outcome:unknown cause:preflight/target drill/audit/")
    page.wait_for_function("document.getElementById('found').textContent !== ''")
    shown = page.locator(".row:not([hidden])")
    assert 0 < shown.count() < 60
    assert page.locator("#found").inner_text() == f"{shown.count()} shown"
    page.keyboard.press("Escape")
    assert page.locator("#found").inner_text() == ""
    assert page.locator(".row[hidden]").count() == 0


def test_what_a_cause_blocks_is_one_line_and_a_button_away(page: Page, folder: Path) -> None:
    """A cause's card is short, and its button filters the checks that it blocks."""
    card = opened(page, folder, "unreachable").locator("article").first
    assert "preflight/target-reachable" in card.inner_text()
    assert len(card.inner_text()) < 1500
    card.get_by_role("button", name="Show them").click()
    assert page.locator(".row:not([hidden])").count() > 500


def test_an_address_opens_the_check_that_it_names(page: Page, folder: Path) -> None:
    """A finding can be linked to: its groups open, and it is in view."""
    row = opened(page, folder, "rollback", f"#{KEYS}").locator(f'[id="{KEYS}"]')
    assert row.evaluate("e => e.open && e.parentElement.open")
    assert opened(page, folder, "rollback", f"#why-{KEYS}").locator(f'[id="why-{KEYS}"]').is_visible()


def test_a_command_is_copied_by_one_press(page: Page, folder: Path) -> None:
    """The button says that it copied, or selects the text where the browser forbids it."""
    opened(page, folder, "rollback")
    button = page.locator("article button.copy").first
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('article button.copy').textContent !== 'copy'")
    assert button.inner_text() in {"copied", "selected"}


def test_both_cohorts_are_shown_beside_each_other(page: Page, folder: Path) -> None:
    """The tenants' shares with the flag on and off, and the difference with its bounds against what is allowed."""
    drawn = opened(page, folder, "cohort").locator("figure", has_text="Events without an effect within a minute")
    said = drawn.inner_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "Of the events of 24 tenants with the flag on 3.7 %, of 211 with it off 0.6 %." in said
    assert "The difference is 3.1 points, surely between 2.8 and 3.4; 0.5 are allowed." in said
    on, off = (drawn.locator(f".boxes rect.{name}").bounding_box() for name in ("first", "other"))
    assert on is not None
    assert off is not None
    assert on["width"] > off["width"]
    assert drawn.locator(".interval").count() == 1


def test_an_alert_brings_its_runbook(page: Page, folder: Path) -> None:
    """Its text is in the page, which is read where no repository is at hand."""
    card = opened(page, folder, "alert").locator("article").first
    card.locator("summary", has_text="Runbook").click()
    assert "Events wait longer than they may." in card.inner_text()


def test_a_finding_of_sql_brings_its_query(page: Page, folder: Path) -> None:
    """Folded, with a button that copies it."""
    card = opened(page, folder, "rollback").locator("article").first
    card.locator("summary", has_text="The query").click()
    assert "from pg_index" in card.inner_text()
    assert card.get_by_role("button", name="copy The query").is_visible()


def test_every_picture_says_in_words_what_it_shows(page: Page, folder: Path) -> None:
    """A reader without pictures gets their numbers."""
    opened(page, folder, "promote")
    assert "Decided before: promote on 2026-01-01 10:00:00 UTC (2026-01-01.4, flag 10&nbsp;%)" in page.content()
    pictures = page.get_by_role("img")
    assert pictures.count() >= 8
    assert all(len(pictures.nth(n).get_attribute("aria-label") or "") > 10 for n in range(pictures.count()))


def test_ten_thousand_findings_are_filtered_while_one_types(page: Page, tmp_path: Path) -> None:
    """The page stays responsive, and finds the one."""
    (tmp_path / "large.html").write_text(large(10_000), encoding="utf-8")
    opened(page, tmp_path, "large").locator("input[type=search]").fill("check-9999")
    page.wait_for_function("document.getElementById('found').textContent === '1 shown'")
    assert page.locator(".row:not([hidden])").count() == 1


def test_the_report_is_printed_to_a_file(browser: Browser, folder: Path, tmp_path: Path) -> None:
    """`gate report --pdf`: a PDF of the page, in place of an older one."""
    made = tmp_path / "report.pdf"
    made.write_bytes(b"%PDF of yesterday")
    write_pdf(folder / "rollback.html", made)
    assert len(made.read_bytes()) > 10_000


def test_without_a_browser_nothing_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names what to install, and an older PDF is removed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotWork, match="no Chromium in PATH; allowed: one of chromium,"):
        write_pdf(tmp_path / "report.html", tmp_path / "report.pdf")
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    broken.chmod(0o755)
    (tmp_path / "report.pdf").write_bytes(b"%PDF of yesterday")
    with pytest.raises(CannotWork, match=r"wrote no PDF \(exit 3\)"):
        write_pdf(tmp_path / "report.html", tmp_path / "report.pdf")
    assert not (tmp_path / "report.pdf").exists()
