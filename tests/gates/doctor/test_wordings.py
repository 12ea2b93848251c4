"""Prose of an OpenAPI document becomes `names:`, but only where its meaning is certain."""

import pytest

from gates.doctor.matching.limit_keys import limits_in
from gates.doctor.reading.wordings import age_s, call_limits, differing, signature_form

REFERENCE = 'Hex HMAC-SHA256 of the raw body (v1), or `t=<unix seconds>,v2=<hex HMAC-SHA256 of "<t>.<raw body>">`.'
SIGNATURES = {
    "`sha256=<hex>` of the body; or `t=<unix>,v1=<hex>`: of `<t>.<raw body>`, for a GET of `<t>.<path>`": {
        "form": "sha256={hex}",
        "v2": "t={t},v1={hex}",
        "signed": "{t}.{body}",
    },
    "sha256=1f2e3d4c5b6a79881f2e3d4c5b6a7988": {"form": "sha256={hex}"},
    "^[0-9a-f]{64}$": {"form": "{hex}"},
    "base64 of the HMAC-SHA256 of the body": {"form": "{base64}"},
    "t=1700000000,v1=5257a869e7ecebeda32affa62cdca3fa over {timestamp}:{body}": {
        "v2": "t={t},v1={hex}",
        "signed": "{t}:{body}",
    },
    "hmac=<hex> over <method>, <path> and the body": {},
    "The signature": {},
    "": {},
}


@pytest.mark.parametrize("said", SIGNATURES)
def test_signatures(said: str) -> None:
    """The form is read from a description, a pattern or an example."""
    assert signature_form(said) == SIGNATURES[said]


def test_the_contracts_own_form_is_no_news() -> None:
    """The reference's own header needs no line."""
    assert differing(signature_form(REFERENCE)) == {}
    assert differing({"form": "{hex}"}) == {}
    assert differing({"v2": "t={t},v1={hex}", "signed": "{t}.{body}"}) == {"v2": "t={t},v1={hex}"}


@pytest.mark.parametrize(
    ("said", "due"),
    [
        ("At most 5 calls per minute.", {"calls": 5, "window_s": 60}),
        ("3 replays in any 300 seconds", {"calls": 3, "window_s": 300}),
        ("10 requests per rolling 60 s window", {"calls": 10, "window_s": 60}),
        ("5 calls per minute, 100 per hour", {}),
        ("Too many requests", {}),
    ],
)
def test_calls(said: str, due: dict[str, int]) -> None:
    """An ambiguous text gives nothing."""
    assert call_limits(said) == due


@pytest.mark.parametrize(("said", "due"), [("not older than 120 s", 120), ("5 minutes tolerance", 300), ("t=17", 0)])
def test_ages(said: str, due: int) -> None:
    """The time for which a signature is valid."""
    assert age_s(said) == due


def test_limits_of_functions() -> None:
    """A number that all functions share counts; differing numbers do not."""
    source = "select count(*) from hits where at > now() - interval '60 seconds'; if n >= 5 then insert"
    assert limits_in({"app.count": source}) == {"calls": (5, "app.count"), "window_s": (60, "app.count")}
    assert limits_in({"app.count": source, "app.login": source.replace("5", "9")}) == {"window_s": (60, "app.login")}
    assert limits_in({"app.count": source.replace("interval '60 seconds'", "make_interval(mins => 2)")}) == {
        "calls": (5, "app.count"),
        "window_s": (120, "app.count"),
    }
