"""The reader of Prometheus text."""

from __future__ import annotations

from gates.target.metrics import broken_histograms, parse_metrics

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
    """Labels are unescaped, families are summed, lines that are no sample are kept apart."""
    scrape = parse_metrics(TEXT)
    assert scrape.total("a_total") == 7.5
    assert scrape.total("a") == 7.5
    assert scrape.total("nothing") is None
    assert scrape.named("a_total")[0].label("path") == '/x"y\\z'
    assert scrape.malformed == ("this is no sample",)


def test_broken_histograms() -> None:
    """Falling buckets and a count that is not the last bucket are broken."""
    assert broken_histograms(parse_metrics(TEXT).samples) == []
    falling = 'h_bucket{le="1"} 5\nh_bucket{le="2"} 4\n'
    assert broken_histograms(parse_metrics(falling).samples) == ["h{}"]
    assert broken_histograms(parse_metrics('h_bucket{le="+Inf"} 4\nh_count 5\n').samples) == ["h{}"]
