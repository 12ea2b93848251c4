"""Reading Prometheus text."""

import time

import pytest

from gates.deployment.http.metrics import MOST_LINES, broken_histograms, parse_metrics

TEXT = r"""
# HELP a_total things
# TYPE a_total counter
a_total{code="200",path="/x\"y\\z"} 3
a_total{code="429"} 4.5 1700000000000
b NaN
this is no sample
h_bucket{le="0.1"} 2
h_bucket{le="+Inf"} 5
h_count 5
"""


def test_samples_and_sums() -> None:
    """Labels are unescaped, families are summed, and invalid lines are kept apart."""
    scrape = parse_metrics(TEXT)
    assert scrape.total("a_total") == 7.5
    assert scrape.total("a") == 7.5
    assert scrape.total("nothing") is None
    assert scrape.named("a_total")[0].label("path") == '/x"y\\z'
    assert scrape.malformed == ("this is no sample",)


def test_openmetrics_is_read() -> None:
    """OpenMetrics samples may have a time in seconds and an exemplar."""
    counter = 'a_total{x="1 # 2"} 3 1700000000.125 # {trace_id="7f"} 0.67 1520879607.789'
    scrape = parse_metrics(f'{counter}\nb_bucket{{le="1"}} 4 # {{}} 0.5\n# EOF\n')
    assert ([s.value for s in scrape.samples], scrape.malformed) == ([3, 4], ())
    assert scrape.samples[0].label("x") == "1 # 2"


GOOD = b'# TYPE a_total counter\na_total{code="1"} 3\n'
SCRAPED = {
    "text/plain; version=0.0.4": {
        True: [GOOD, GOOD[:-1], b" " + GOOD, GOOD + b"\n#odd\nb +1\n", GOOD + b'b{ x = "1" , } .5 -17\n'],
        False: [
            *(GOOD + b"b %b\n" % number for number in (b"1_000", "\u0663".encode(), b"1 1.5", b'1 # {x="y"} 1')),
            *(GOOD + b"b{%b} 1\n" % labels for labels in (b'x="1",x="2"', b'x="\xff"', b'x="1",,')),
            *(GOOD.replace(b"counter", kind) for kind in (b"counter\r", b"count")),
        ],
    },
    "application/openmetrics-text; version=1.0.0": {
        True: [GOOD + b"# EOF\n", GOOD + b"# EOF", GOOD + b'b_total 1 1.5 # {x="y"} 1\n# EOF\n'],
        False: [GOOD, GOOD + b"\n# EOF\n", GOOD + b"# EOF\nb 1\n"],
    },
}


@pytest.mark.parametrize(
    ("kind", "whole", "pages"), [(kind, whole, pages) for kind, of in SCRAPED.items() for whole, pages in of.items()]
)
def test_a_page_is_read_where_prometheus_reads_it(kind: str, whole: bool, pages: list[bytes]) -> None:
    """A page is valid exactly where Prometheus 2.53 scraped it; one bad line fails the page."""
    assert [parse_metrics(one, kind).malformed == () for one in pages] == [whole] * len(pages)


def test_broken_histograms() -> None:
    """Falling buckets, or a count unlike the last bucket, are broken."""
    assert broken_histograms(parse_metrics(TEXT).samples) == []
    falling = 'h_bucket{le="1"} 5\nh_bucket{le="2"} 4\n'
    assert broken_histograms(parse_metrics(falling).samples) == ["h{}"]
    assert broken_histograms(parse_metrics('h_bucket{le="+Inf"} 4\nh_count 5\n').samples) == ["h{}"]
    assert broken_histograms(parse_metrics('h_bucket{le="x"} 4\n').samples) == ["h_bucket{'le': 'x'}"]


MEGABYTES = 2_000_000
HOSTILE = {
    "backslashes": 'a{b="' + "\\" * MEGABYTES + '"} 1',
    "escapes": 'a{b="' + '\\"' * (MEGABYTES // 2) + '"} 1',
    "open text": 'a{b="' + "x" * MEGABYTES,
    "open escapes": 'a{b="' + '\\"' * (MEGABYTES // 2),
    "commas": "a{" + "," * MEGABYTES + "} 1",
    "labels": "a{" + 'b="",' * (MEGABYTES // 5) + "} 1",
    "labels without an end": "a{" + 'b="",' * (MEGABYTES // 5),
    "braces": "a" + "{" * MEGABYTES + "} 1",
    "spaces": "a" + " " * MEGABYTES + "x",
    "spaces in labels": "a{" + " " * MEGABYTES + "x",
    "names": "a" * MEGABYTES,
    "quotes": "a{b=" + '"' * MEGABYTES + "} 1",
    "words": "a 1 " + "1 " * (MEGABYTES // 2),
    "digits": "a 1 " + "1" * MEGABYTES,
    "lines": "a 1\n" * (MEGABYTES // 4),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_reading_is_linear(text: str) -> None:
    """Two megabytes of the worst text take about as long as any other."""
    began = time.process_time()
    scrape = parse_metrics(text)
    assert time.process_time() - began < 3
    assert len(scrape.samples) + len(scrape.malformed) <= MOST_LINES + 1
