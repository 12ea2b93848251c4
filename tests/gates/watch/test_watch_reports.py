"""The reports of the watch are complete, escaped, small and deterministic."""

import datetime as dt
import json
import re
from html.parser import HTMLParser

from gates.evidence import CheckSpec, Outcome, Severity, Where
from gates.reports.pictures import line, pieces, strip
from gates.watch.html import html
from gates.watch.incidents import WatcherHealth
from gates.watch.rounds import Change, Incident, Reading, Round
from gates.watch.text import markdown, round_text, slack, to_json
from gates.watch.view import WatchView

NOW = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
ODD = "<script>alert(1)</script> | `x` & </td>\x1b[31m"
LIMITS = (("page", 5.0), ("warn", 2.0))
GOOD = Reading("sql/spot/odd", Outcome.PASS)
FLAPS = (Reading("sql/spot/flaps", Outcome.PASS), Reading("sql/spot/flaps", Outcome.FAIL, "hold"))


def history(number: int = 40) -> list[Round]:
    """A rising lag, a check that fails at the end with odd text, and one that flaps."""
    made = []
    for i in range(number):
        at = (NOW - dt.timedelta(minutes=5 * (number - i))).isoformat(timespec="milliseconds")
        bad = i >= number - 3
        readings = {
            "alert/outbox-lag": Reading("alert/outbox-lag", Outcome.PASS, value=0.04 * i, limits=LIMITS, unit="s"),
            "sql/spot/odd": Reading("sql/spot/odd", Outcome.FAIL, "rollback", message=ODD) if bad else GOOD,
            "sql/spot/flaps": FLAPS[i % 2],
        }
        incident = Incident("sql/spot/odd", "failing", "page", at, at, 3, 3, True, at, message=ODD)
        change = Change("failing", "sql/spot/odd", "page", ODD, at)
        state, reason = ("failing", ODD) if bad else ("good", "fine")
        opened, changed = (incident,) * bad, (change,) * (i == number - 3)
        made.append(
            Round(
                i + 1, at, at, "t", state, reason, "r<1>", 300.0, readings=readings, incidents=opened, changes=changed
            )
        )
    return made


def view(rounds: list[Round] | None = None, health: WatcherHealth | None = None) -> WatchView:
    made = history() if rounds is None else rounds
    specs = {"sql/spot/odd": CheckSpec("sql/spot/odd", "claim <b>", "cost", Severity.PAGE, Where.READ_ONLY)}
    return WatchView(
        rounds=tuple(made),
        last=made[-1] if made else None,
        now=NOW,
        health=health or WatcherHealth(),
        place="http://x/<b>",
        total=len(made),
        specs=specs,
    )


class Balanced(HTMLParser):
    """Checks that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.seen.add(tag)
        if tag not in {"meta", "input", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An empty element needs no end tag."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_escaped() -> None:
    """Text of the target stays text, and nothing is loaded."""
    page = html(view())
    reader = Balanced()
    reader.feed(page)
    assert reader.open == []
    assert "svg" in reader.seen
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(?:src|href)=|https?://(?!x/)", page)
    for said in ("Open", "Near a limit", "Numbers", "All checks", "What happened", "The watch itself", "flapping"):
        assert said in page


def test_the_same_history_gives_the_same_page() -> None:
    """The page depends on the history and the time alone."""
    assert html(view()) == html(view())
    assert markdown(view()) == markdown(view())


def test_a_history_without_a_round_is_doubtful_in_every_report() -> None:
    """An empty history proves nothing."""
    empty = view([])
    assert empty.state == "doubtful"
    assert "there is no round in this history" in html(empty)
    assert markdown(empty).startswith("## 🟡 watch: doubtful")
    assert json.loads(to_json(empty))["exit_code"] == 10


def test_a_good_history_of_a_dead_watcher_is_doubtful() -> None:
    """The last good round no longer counts; a failure stays one."""
    good = view(history()[:30], WatcherHealth(down_s=7200.0, said="the watcher was down"))
    assert (good.state, "the watcher was down" in good.reason) == ("doubtful", True)
    bad = view(health=WatcherHealth(down_s=7200.0, said="the watcher was down"))
    assert bad.state == "failing"


def test_markdown_keeps_its_tables_whatever_a_message_holds() -> None:
    """Text of the target cannot break a table cell."""
    text = markdown(view())
    assert "<script>" not in text
    rows = [row for row in text.splitlines() if row.startswith("| <code>sql/spot/odd<")]
    widths = [row.count("|") for row in rows]
    assert widths == [6]
    assert "warn 2 s in" in text


def test_machines_get_one_object_on_one_line() -> None:
    """With the state, what is open, and every trend with its unknowns as null."""
    text = to_json(view())
    assert text.count("\n") == 1
    data = json.loads(text)
    assert (data["state"], data["exit_code"], data["open"][0]["check"]) == ("failing", 20, "sql/spot/odd")
    lag = data["trends"]["alert/outbox-lag"]
    assert (lag["limit_reached"], lag["slope_certain"]) == ("warn", True)
    assert data["trends"]["sql/spot/flaps"]["flapping"]
    assert data["trends"]["sql/spot/flaps"]["slope_per_h"] is None


def test_a_round_for_a_terminal_says_what_changed_and_what_is_open() -> None:
    """It has few lines, and the sentence comes first."""
    made = history()
    text = round_text(made[-3], WatcherHealth())
    assert text.startswith("FAILING: ")
    assert "  failing: sql/spot/odd: " in text
    assert "open since" in round_text(made[-1], WatcherHealth())


def test_what_misses_one_thing_is_one_line() -> None:
    """A hundred checks with one missing prerequisite are one line."""
    at = NOW.isoformat()
    changes = [Change("blind", f"sql/spot/{i}", "blind", "no connection", at) for i in range(100)]
    text = json.loads(slack(history()[-1], changes))["blocks"][0]["text"]["text"]
    assert text.count("\n") == 0
    assert "`sql/spot/0` and 99 more: no connection" in text


def test_a_slack_message_stays_within_what_slack_takes() -> None:
    """It fits however much changed, and mentions nobody."""
    at = NOW.isoformat()
    changes = [Change("failing", f"sql/spot/{i}", "page", "<!channel> " + "x" * 500, at) for i in range(200)]
    body = json.loads(slack(history()[-1], changes))
    assert all(len(b["text"]["text"]) <= 3000 for b in body["blocks"] if b["type"] == "section")
    assert "<!channel>" not in json.dumps(body)
    assert "and 190 more" in json.dumps(body)


def test_a_line_has_a_gap_where_nothing_was_seen() -> None:
    """A pause three times as long as usual breaks the line; a single value is a dot."""
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, 1.0), (60.0, 1.0)]
    assert [len(p) for p in pieces(points)] == [3, 1]
    assert line(points, 0, 60).count("<polyline") == 1
    assert line([], 0, 1) == ""
    assert 'class="limit"' in line(points, 0, 60, [2.5])
    assert 'class="limit"' not in line(points, 0, 60, [1000.0])


def test_a_strip_shows_one_bad_round_among_many_good_ones() -> None:
    """Equal neighbours are one bar; failures are drawn on top, wide enough to see."""
    marks = [(float(i), "fail" if i == 500 else "pass") for i in range(1000)]
    drawn = strip(marks, 0, 1000)
    assert drawn.count("<rect") < 10
    assert drawn.rindex('class="fail"') > drawn.rindex('class="pass"')
    width = re.search(r'class="fail" x="[\d.]+" width="([\d.]+)"', drawn)
    assert width is not None
    assert float(width[1]) >= 1.5
    assert strip([], 0, 1) == ""


def test_a_strip_shows_the_last_round_as_wide_as_the_others() -> None:
    """The last round has full width at the end of the time axis."""
    drawn = strip([(0.0, "pass"), (1.0, "pass"), (2.0, "fail")], 0, 2)
    found = re.search(r'class="fail" x="([\d.]+)" width="([\d.]+)"', drawn)
    assert found is not None
    assert abs(float(found[2]) - 60.0) < 0.1
    assert float(found[1]) + float(found[2]) <= 180.0
