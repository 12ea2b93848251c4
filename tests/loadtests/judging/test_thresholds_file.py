"""Thresholds files: what a k6 user pastes is read unchanged; every mistake is named by file, line and column."""

import pytest

from loadtests.scenario import Stage
from loadtests.thresholds.file import ThresholdsFile, ThresholdsFileError, parse_thresholds
from loadtests.thresholds.language import MetricType

TYPES = {
    "http_req_failed": MetricType.RATE,
    "http_req_duration": MetricType.TREND,
    "outbox_lag_ms": MetricType.TREND,
    "agent_success": MetricType.RATE,
    "dlq_items_count": MetricType.COUNTER,
}

CHECKLIST = """
export const options = {
  thresholds: {
    http_req_failed: ['rate<0.02'],        // Error rate < 2%
    http_req_duration: ['p(95)<2500'],     // 95% < 2.5s
    outbox_lag_ms: ['p(95)<5000', 'avg<2000'], // Enhanced outbox lag
    agent_success: ['rate>0.98'],          // Success ≥ 98%
  },
};
"""


def read(text: str, name: str = "options.js") -> ThresholdsFile:
    return parse_thresholds(text, name, TYPES)


def sources(file: ThresholdsFile) -> dict[str, list[str]]:
    return {str(k): [t.expression.source for t in v] for k, v in file.thresholds.by_metric.items()}


EXPECTED = {
    "http_req_failed": ["rate<0.02"],
    "http_req_duration": ["p(95)<2500"],
    "outbox_lag_ms": ["p(95)<5000", "avg<2000"],
    "agent_success": ["rate>0.98"],
}


def test_the_checklists_block_is_read_unchanged() -> None:
    """The very text printed in the checklist gives its four metrics and five thresholds."""
    assert sources(read(CHECKLIST)) == EXPECTED


@pytest.mark.parametrize(
    "wrap",
    [
        CHECKLIST,
        "import http from 'k6/http';\n" + CHECKLIST + "\nexport default function () { http.get(`http://x/${1}`); }\n",
        CHECKLIST.partition("options = ")[2].strip().rstrip(";"),
        CHECKLIST.partition("options = {")[2].rpartition("}")[0],
        CHECKLIST.partition("thresholds: ")[2].rpartition(",\n}")[0],
        "module.exports = " + CHECKLIST.partition("options = ")[2],
        "/* k6 */ const options = " + CHECKLIST.partition("options = ")[2],
    ],
    ids=["export", "whole script", "object", "members", "thresholds object", "commonjs", "const"],
)
def test_every_way_of_pasting_it_gives_the_same(wrap: str) -> None:
    """The whole script, the options, their members, or the thresholds object alone."""
    assert sources(read(wrap)) == EXPECTED


def test_json_and_yaml_say_the_same() -> None:
    """The same block in JSON and in YAML."""
    assert sources(read('{"thresholds": {"http_req_failed": ["rate<0.02"]}}', "t.json")) == {
        "http_req_failed": ["rate<0.02"]
    }
    text = "thresholds:\n  http_req_failed: [rate<0.02]\n  outbox_lag_ms:\n    - p(95)<5000\n    - avg<2000\n"
    assert sources(read(text, "t.yaml"))["outbox_lag_ms"] == ["p(95)<5000", "avg<2000"]


def test_all_forms_of_javascript_literals_are_read() -> None:
    """Quotes of three kinds, escapes, comments, trailing commas, numbers with underscores, abort options, stages."""
    file = read(
        """{
      /* block
         comment */
      stages: [ { duration: '1m30s', target: 1_0 }, { target: 0, duration: `10s`, }, ],
      vus: 0x5,
      "thresholds": {
        'http_req_duration{name:"a\\u0062", method:\\'GET\\'}': [
           { threshold: "p(99)<1_000", abortOnFail: true, delayAbortEval: '1m' },
           `avg<300`,   // last
        ],
      },
    };"""
    )
    assert sources(file) == {"http_req_duration{method:GET,name:ab}": ["p(99)<1_000", "avg<300"]}
    (ramp,) = file.scenarios
    assert (ramp.level, ramp.stages) == (5, (Stage(90.0, 10), Stage(10.0, 0))), "k6 begins with `vus`"
    (first, second) = next(iter(file.thresholds.by_metric.values()))
    assert (first.abort_on_fail, first.delay_abort_ns) == (True, 60_000_000_000)
    assert (second.abort_on_fail, second.delay_abort_ns) == (False, None)


@pytest.mark.parametrize(
    ("text", "name", "place", "words"),
    [
        ("{thresholds: {\n  http_req_failed: ['rate<2%'],\n}}", "a.js", "a.js:2:21:", "not a number"),
        ("{thresholds: {\n  http_req_failed: ['rate<1'],\n  http_req_failed: []}}", "a.js", "a.js:3:3:", "twice"),
        ("{thresholds: {http_req_faild: ['rate<1']}}", "a.js", "a.js:1:15:", "nearest known one is 'http_req_failed'"),
        ("{tresholds: {}, vus: 1}", "a.js", "a.js:1:2:", "nearest known one is 'thresholds'"),
        ("{thresholds: {http_req_failed: 'rate<1'}}", "a.js", "a.js:1:32:", "a list was expected"),
        ("{thresholds: {http_req_failed: ['p(95)<1']}}", "a.js", "a.js:1:33:", "has no 'p'"),
        ("{thresholds: {http_req_failed: [{treshold: 'rate<1'}]}}", "a.js", "a.js:1:34:", "'threshold'"),
        ("{thresholds: {http_req_failed: [{threshold: 'rate<1', abortOnFail: 1}]}}", "a.js", "a.js:1:68:", "true"),
        ("{thresholds: {http_req_failed: ['rate<1']", "a.js", "a.js:1:42:", "bracket, quote or comment, is missing"),
        ("{thresholds: {http_req_failed: ['rate<1}}", "a.js", "a.js:1:42:", "quote or comment, is missing"),
        ("{thresholds: {...shared}}", "a.js", "a.js:1:15:", "a key was expected"),
        ("{thresholds: {http_req_failed: [`rate<${x}`]}}", "a.js", "a.js:1:39:", "needs JavaScript"),
        ("{thresholds: {http_req_failed: [limit]}}", "a.js", "a.js:1:33:", "not 'limit'"),
        ("{thresholds: {} } extra", "a.js", "a.js:1:18:", "no JavaScript"),
        ("{thresholds: {}}", "a.js", "a.js:1:14:", "no threshold"),
        ("{stages: []}", "a.js", "a.js:1:1:", "no thresholds block"),
        ("", "a.js", "a.js:1:1:", "no threshold"),
        ("thresholds:\n  http_req_failed: [rate<1]\n  http_req_failed: [rate<2]\n", "a.yml", "a.yml:3:3:", "twice"),
        ("thresholds: [\n", "a.yaml", "a.yaml:2:1:", "no valid YAML"),
        ("thresholds:\n  http_req_failed: &x [rate<1]\n  agent_success: *x\n", "a.yaml", "a.yaml:2:20:", "aliases"),
        ("thresholds:\n  http_req_failed:\n  - {threshold: rate<1, abortOnFail: y}\n", "a.yaml", "a.yaml:3:38:", "tr"),
        ("{stages: [{duration: '1 s'}], thresholds: {agent_success: ['rate>0']}}", "a.js", "a.js:1:11:", "needs both"),
        ("{duration: '1 s', thresholds: {agent_success: ['rate>0']}}", "a.js", "a.js:1:12:", "no duration"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(text: str, name: str, place: str, words: str) -> None:
    """A file that cannot be used says where (file:line:column) and what was allowed."""
    with pytest.raises(ThresholdsFileError) as caught:
        read(text, name)
    assert str(caught.value).startswith(place), str(caught.value)
    assert words in str(caught.value)


def test_two_keys_of_the_same_submetric_are_merged_and_noted() -> None:
    """k6 would lose one list; here both count, and a note says so."""
    file = read("{'http_req_duration{a:1,b:2}': ['avg<1'], 'http_req_duration{b:2,a:1}': ['max<2']}")
    assert sources(file) == {"http_req_duration{a:1,b:2}": ["avg<1", "max<2"]}
    assert any("both lists count" in note for note in file.notes)


def test_lints_and_ignored_options_are_noted() -> None:
    """A note for each option without effect and each threshold that was surely not meant."""
    file = read("{summaryTrendStats: ['avg'], thresholds: {http_req_duration: ['p(0.95)<2500', 'p<200']}}")
    assert len(file.notes) == 3
    assert all(note.startswith("options.js:1") for note in file.notes)
