"""Secrets that are printed in documentation, or are somebody's default, open nothing: by signature or by token."""

import hashlib
import hmac
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import yaml

from drills.workbench.bench import Bench
from gates.checks.recorder import check
from gates.deployment.credentials import good_claims
from gates.deployment.requests import claims_of, encode_segment, mint_token, sign_v1, sign_v2
from gates.evidence import Where

drill = partial(check, where=Where.READ_ONLY)

FILE = Path(__file__).with_name("known_secrets.yaml")
SHORT = 16
"""Words up to this length are looked for with a number or a sign after them, too."""
ENDINGS = ("1", "123", "!", "2024", "2025", "2026")


@cache
def known_secrets() -> dict[str, str]:
    """Every known secret, and where it is printed."""
    listed: dict[str, list[str]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {secret: place for place, secrets in listed.items() for secret in secrets}


def told(bench: Bench, secret: str, place: str, variable: str) -> str:
    """How a finding names the secret. The gate's own is known, too, where it stands in the list."""
    own = {*bench.seen.target.hmac_secrets, bench.seen.target.jwt_secret}
    return f"signed with {secret!r} ({place})" + (f", which is {variable} itself" if secret in own else "")


@drill("drill/authentication/known-secrets", covers=("A04",))
def test_signatures_by_known_secrets(bench: Bench) -> None:
    """A signature made with a secret out of documentation, a well-known default, none or that of tokens is refused.

    Whoever has read the manual can replay events of any tenant. Change the secret at once.
    """
    body, now = bench.body(), bench.clock.now()
    tried = {secret: told(bench, secret, place, "TRANSBOT_HMAC_SECRET") for secret, place in known_secrets().items()}
    if of_tokens := bench.target.jwt_secret:
        tried[of_tokens] = "signed with the secret of tokens"
    bench.shut_all(
        [
            bench.with_signature(signature, body, label)
            for secret, label in tried.items()
            for signature in (sign_v1(secret, body), sign_v2(secret, body, now))
        ]
    )
    bench.opens(bench.signed(body))  # last: a known secret that is accepted is harm, whatever ours is


@drill("drill/tokens/common-secrets", covers=("B05", "B06"))
def test_tokens_by_known_secrets(bench: Bench) -> None:
    """A token signed with a secret out of documentation, with a well-known default or with none is refused.

    Anyone who has read the manual can become administrator of every tenant. Change the secret at once.
    """
    target = bench.seen.target
    claims = {**claims_of(target.admin_jwt), **good_claims(target, bench.clock.now())}
    bench.shut_all(
        [
            bench.with_token(mint_token(secret, claims), label=told(bench, secret, place, "REPLAY_JWT_SECRET"))
            for secret, place in known_secrets().items()
        ]
    )
    bench.opens(bench.with_token(bench.admin(), label="admin token"))


@drill("drill/tokens/secret-not-guessable", after=("drill/tokens/admin-accepted",), covers=("B06",))
def test_secret_not_guessable(bench: Bench) -> None:
    """The secret of the admin token is not a word from documentation.

    Anyone who sees one token can find the secret offline.
    """
    token = bench.admin()
    bench.opens(bench.with_token(token, label="admin token"))
    bench.guarded()
    words = list(_guesses())
    bench.seen.require(_cracked(mint_token("changeme", {"sub": "x"}), words), "the search misses a planted secret")
    bench.seen.count(len(words))
    assert not _cracked(token, words), f"the admin token is signed with one of {len(words)} common secrets"


def _guesses() -> Iterator[str]:
    for word in known_secrets():
        yield word
        yield from (word + ending for ending in ENDINGS if len(word) <= SHORT)


def _cracked(token: str, words: list[str]) -> bool:
    unsigned, _, signature = token.rpartition(".")
    macs = (encode_segment(hmac.new(w.encode(), unsigned.encode(), hashlib.sha256).digest()) for w in words)
    return any(hmac.compare_digest(mac, signature) for mac in macs)
