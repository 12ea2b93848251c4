"""The threshold language by itself: numbers, durations, keys, percentiles."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.engine.sinks import CounterSink, GaugeSink, RateSink, TrendSink
from loadtests.thresholds.language import (
    AGGREGATIONS,
    OPERATORS,
    MetricKey,
    MetricType,
    Threshold,
    ThresholdError,
    ThresholdSet,
    k6_verdict,
    lint,
    parse_duration_ns,
    parse_expression,
    parse_float,
    parse_metric_key,
)

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite)
def test_every_float_is_read_back_from_its_decimal_and_its_hexadecimal_text(number: float) -> None:
    """What repr() and hex() write is read as the same number."""
    assert parse_float(repr(number)) == number
    assert parse_float(number.hex()) == number


@given(st.text(max_size=12))
def test_no_text_breaks_the_readers(text: str) -> None:
    """Whatever the text, a reader gives a value or a ThresholdError, nothing else."""
    for read in (parse_float, parse_duration_ns, parse_expression, parse_metric_key):
        try:
            read(text)
        except ThresholdError:
            continue


@given(
    st.sampled_from(["avg", "min", "max", "med", "p(95)", "p(99.9)", "count", "rate", "value"]),
    st.sampled_from(OPERATORS),
    finite,
    st.sampled_from(["", " ", "\t", "\u00a0"]),
)
def test_an_expression_survives_spaces_around_its_parts(method: str, op: str, limit: float, space: str) -> None:
    """Spaces around method and limit change nothing."""
    plain, spaced = (
        parse_expression(f"{method}{op}{limit!r}"),
        parse_expression(f"{space}{method} {op} {limit!r}{space}"),
    )
    assert (plain.method, plain.operator, plain.limit, plain.percentile) == (
        spaced.method,
        spaced.operator,
        spaced.limit,
        spaced.percentile,
    )


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=60), st.floats(0, 100))
@settings(max_examples=200)
def test_a_percentile_lies_between_its_neighbours_and_grows_with_n(values: list[float], percent: float) -> None:
    """p(N) is monotone in N, ends at the extremes, and does not depend on the order of arrival."""
    sink, other = TrendSink(), TrendSink()
    for value in values:
        sink.add(value)
    for value in reversed(values):
        other.add(value)
    low, high = sink.percentile(0), sink.percentile(100)
    assert (low, high) == (min(values), max(values))
    slack = 1e-9 * max(1.0, high)
    assert low - slack <= sink.percentile(percent) <= high + slack
    assert sink.percentile(percent) <= sink.percentile(min(100.0, percent + 10)) + slack
    assert sink.percentile(percent) == other.percentile(percent)


@given(st.lists(st.floats(0, 1e6), max_size=40), st.integers(0, 40))
def test_merging_two_halves_equals_one_whole(values: list[float], cut: int) -> None:
    """However samples are split over workers, the merged trend, rate and counter are those of one process."""
    whole, left, right = TrendSink(), TrendSink(), TrendSink()
    rates, counters = (RateSink(), RateSink(), RateSink()), (CounterSink(), CounterSink(), CounterSink())
    for index, value in enumerate(values):
        (left if index < cut else right).add(value)
        whole.add(value)
        for group in (rates, counters):
            group[0].add(int(value))
            (group[1] if index < cut else group[2]).add(int(value))
    left.merge(right)
    rates[1].merge(rates[2])
    counters[1].merge(counters[2])
    assert left.in_order() == whole.in_order()
    assert (rates[0], counters[0]) == (rates[1], counters[1])


def test_a_gauge_keeps_the_latest_value_of_all_workers() -> None:
    """The value that was taken last wins, not the worker that reported last."""
    early, late = GaugeSink(), GaugeSink()
    early.add(5, at=10.0)
    late.add(3, at=9.0)
    early.merge(late)
    assert (early.value, early.samples) == (5, 2)
    late.merge(early)
    assert late.value == 5


def test_pairs_in_another_order_are_the_same_metric() -> None:
    """k6 loses one of two such keys; here they are one."""
    assert (
        parse_metric_key("m{a:1, b:'x'}")
        == parse_metric_key('m{ b:x ,a:"1"}')
        == MetricKey("m", (("a", "1"), ("b", "x")))
    )


def test_a_submetric_takes_samples_that_carry_all_its_tags() -> None:
    """More tags on a sample do no harm; a missing or other one leaves it out."""
    key = parse_metric_key("m{a:1,b:x}")
    assert key.matches({"a": "1", "b": "x", "c": "z"})
    assert not key.matches({"a": "1"})
    assert not key.matches({"a": "1", "b": "y"})


@pytest.mark.parametrize("kind", list(MetricType))
def test_an_aggregation_of_another_type_is_refused(kind: MetricType) -> None:
    """Each type has its own aggregations; all others are configuration errors."""
    for method in ("count", "rate", "value", "avg", "min", "max", "med", "p(95)"):
        wanted = ThresholdSet({MetricKey("mm"): (Threshold(parse_expression(f"{method}<1")),)})
        if method.partition("(")[0] in AGGREGATIONS[kind]:
            wanted.validate({"mm": kind})
        else:
            with pytest.raises(ThresholdError, match="has no"):
                wanted.validate({"mm": kind})


def test_an_unknown_metric_is_refused() -> None:
    """A threshold on a metric that nobody measures is an error before the start, not a pass."""
    with pytest.raises(ThresholdError, match="does not exist"):
        ThresholdSet({MetricKey("no"): (Threshold(parse_expression("count<1")),)}).validate({"mm": MetricType.COUNTER})


def test_empty_metrics_get_the_verdicts_that_k6_makes_up() -> None:
    """A rate without samples passes everything, an empty trend and gauge are 0: the traps our own verdict avoids."""
    assert all(k6_verdict(RateSink(), parse_expression(e), 1) for e in ("rate>0.98", "rate<0", "rate==7"))
    assert k6_verdict(TrendSink(), parse_expression("p(95)<2500"), 1)
    assert k6_verdict(GaugeSink(), parse_expression("value<1"), 1)
    assert k6_verdict(CounterSink(), parse_expression("count==0"), 1)


@pytest.mark.parametrize(
    ("source", "words"),
    [("p<200", "minimum"), ("p(0.95)<2500", "p(95)"), ("avg<NaN", "never decide"), ("avg<Inf", "never decide")],
)
def test_a_legal_threshold_that_was_surely_not_meant_is_linted(source: str, words: str) -> None:
    """The verdict is k6's, and a sentence says what it means."""
    assert words in " ".join(lint(MetricKey("mm"), Threshold(parse_expression(source))))
    assert not lint(MetricKey("mm"), Threshold(parse_expression("p(95)<2500")))


def test_an_abort_waits_for_its_delay() -> None:
    """A failing abortOnFail threshold stops at once, or after delayAbortEval has passed."""
    expression = parse_expression("avg<1")
    assert Threshold(expression, abort_on_fail=True).aborts(0)
    delayed = Threshold(expression, abort_on_fail=True, delay_abort_ns=parse_duration_ns("10s"))
    assert not delayed.aborts(10_000_000_000)
    assert delayed.aborts(10_000_000_001)
    assert not Threshold(expression).aborts(10**12)


def test_durations_are_nanoseconds() -> None:
    """Numbers are milliseconds; texts add up their parts; a day is 24 hours."""
    assert parse_duration_ns(1500) == parse_duration_ns("1.5s") == parse_duration_ns("1500") == 1_500_000_000
    assert parse_duration_ns("1d2h3m4s") == (((26 * 60) + 3) * 60 + 4) * 1_000_000_000
    assert parse_duration_ns("-1m30s") == -90_000_000_000
    assert math.isclose(parse_duration_ns("0.1ms"), 100_000)
