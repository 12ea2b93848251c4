"""Authentication with several credentials, in wrong places, or after forged ones."""

from dataclasses import replace
from functools import partial

import pytest

from drills.workbench.bench import Bench, read_paths
from drills.workbench.checks import SIGNED, SQL, Case, cases
from drills.workbench.credentials import REPLAY, Minter
from drills.workbench.scene import Scene
from gates.checks.recorder import check
from gates.deployment.dialect.current import current, http_words
from gates.deployment.http import probes
from gates.deployment.ids import new_id
from gates.deployment.requests import (
    SIGNATURE,
    Answer,
    Exchange,
    Request,
    forged_signature,
    post,
    sign_v2,
    signed_get,
    token_get,
)
from gates.evidence import Severity, Where

drill = partial(check, after=SIGNED, where=Where.READ_ONLY)

DOUBLED = [
    Case(
        "two-signatures-good-bad", "Two signature headers, the right one first, are refused.", (True, False), ("A13",)
    ),
    Case("two-signatures-bad-good", "Two signature headers, the right one last, are refused.", (False, True), ("A13",)),
    Case("two-signatures-alike", "The right signature header twice is refused.", (True, True), ("A13",), Severity.WARN),
]


@cases("drill/authentication", DOUBLED, where=Where.READ_ONLY, after=SIGNED)
def test_two_signature_headers(case: Case, bench: Bench) -> None:
    """Two signature headers are refused, whichever of them is right.

    A proxy and the service may each read another one: the signature that was checked is not the one that is used.
    """
    body = bench.body()
    bench.opens(bench.signed(body))
    signatures = [bench.mac(body) if good else forged_signature() for good in case.value]
    twice = post(REPLAY, body, *((SIGNATURE, s) for s in signatures), label=case.name)
    bench.refused(twice, (400, 401))
    read = bench.signed_read()
    bench.opens(read)
    right = read.headers[0]
    both = tuple(right if good else (SIGNATURE, forged_signature()) for good in case.value)
    bench.refused(replace(read, headers=both, label=f"{case.name}, a read"), (400, 401))


@drill("drill/authentication/bad-token-beside-good-signature", covers=("B24",))
def test_bad_token_beside_good_signature(bench: Bench) -> None:
    """A right signature does not excuse a wrong token beside it: if both are sent, both must be valid.

    Behind a gateway that signs all requests, a forged token passes.
    """
    for good in (bench.signed(), bench.signed_read()):
        bench.opens(good)
        for token in ("e30.e30.AAAA", "undefined", "null"):  # what a page sends that has no token
            bearer = ("Authorization", f"Bearer {token}")
            bench.shut(good.adding_header(*bearer).labelled(f"right signature, wrong token {token}"))


@drill("drill/authentication/bad-signature-beside-good-token", covers=("B24",))
def test_bad_signature_beside_good_token(bench: Bench) -> None:
    """A valid token does not excuse a wrong or stale signature beside it: if both are sent, both must be valid, for
    reads, too.

    A body that was changed in transit is accepted.
    """
    good = bench.with_token(bench.admin(), label="token alone")
    bench.opens(good)
    bench.shut(good.adding_header(SIGNATURE, forged_signature()).labelled("valid token, wrong signature"))
    long_ago = bench.clock.now() - 2 * current().limit("signature_age_s")
    stale = good.adding_header(SIGNATURE, sign_v2(bench.signer.secret, good.body, long_ago))
    bench.shut(stale.labelled("valid token, stale signature"))
    for path in read_paths():
        read = token_get(path, bench.admin(), "a read by a token")
        bench.opens(read)
        bench.shut(read.adding_header(SIGNATURE, forged_signature()).labelled(f"{read.label}, wrong signature"))


@check(
    "drill/authentication/token-rights-apply-when-both-are-sent",
    needs=("tenants", "mint"),
    after=SIGNED,
    covers=("A26",),
)
def test_token_rights_apply(bench: Bench, scene: Scene, tenant: str, other: str, token: Minter) -> None:
    """A right signature beside a company_admin token gives that token's rights, not those of the signature.

    A tenant's administrator acts for other tenants through any gateway that signs.
    """
    bearer = ("Authorization", f"Bearer {token.for_company(tenant)}")
    both = scene.replay_request(tenant, "both, own company", dry_run=True).adding_header(*bearer)
    bench.seen.expect(both, scene.http.send(both), 200, control=True)
    crossed = scene.replay_request(other, "both, foreign company", dry_run=True).adding_header(*bearer)
    bench.refused(crossed, 403)


LATER = "signed with a later secret of the list"


@drill("drill/authentication/every-secret-of-the-list", covers=("A23",))
def test_every_secret_of_the_list(bench: Bench) -> None:
    """Each secret of the rotation list verifies, of replays, events and reads, and the list as a whole does not.

    Senders that still use the older secret are locked out in a rotation, or the list itself is a secret.
    """
    secrets = bench.target.hmac_secrets
    body = bench.body()
    bench.opens(bench.signed(body))
    for secret in secrets[1:]:
        now = bench.clock.now()
        for signature in {bench.signature(secret, body), sign_v2(secret, body, now)}:
            bench.accepted(bench.with_signature(signature, body, LATER))
        event = bench.event().body
        signs = (bench.signature(secret, event), sign_v2(secret, event, now))
        events = [post("/events", event, (SIGNATURE, sign), label=f"an event, {LATER}") for sign in signs]
        reads = [signed_get(path, secret, now, f"a read, {LATER}") for path in read_paths()]
        for request in (*events * current().takes_events, *reads):
            bench.accepted(request)
    lists = [",".join([*secrets, "x"]), *([",".join(secrets)] if len(secrets) > 1 else [])]
    for whole in lists:
        bench.shut(bench.with_signature(bench.signature(whole, body), body, "signed with the list itself"))
    bench.seen.value(len(secrets), unit="secrets")


COOKIES = ("token", "access_token", "sb-access-token", "auth_token", "id_token", "jwt", "session")
QUERIES = [
    Case("signature-in-query", "The right signature in the query string is refused.", "signature", ("A32",)),
    Case("token-in-query", "A valid token in the query string is refused.", "token", ("A32",)),
    Case("token-in-cookie", "A valid token in a cookie is refused.", "cookie", ("A32",)),
]


@cases("drill/authentication", QUERIES, severity=Severity.WARN, where=Where.READ_ONLY, after=SIGNED)
def test_credentials_elsewhere(case: Case, bench: Bench) -> None:
    """Credentials count in their headers only, not in the URL or in cookies.

    In a URL they end in logs and histories; in a cookie any web page may send them.
    """
    body = bench.body()
    bench.opens(bench.signed(body))
    jwt = bench.target.admin_jwt
    bench.seen.require(case.value == "signature" or jwt, "ADMIN_JWT is not set. Set it to a valid admin token")
    bare = post(REPLAY, body, label=case.name)
    names = {
        "signature": [f"signature={bench.mac(body)}", f"{SIGNATURE}={bench.mac(body)}"],
        "token": [f"access_token={jwt}", f"token={jwt}", f"authorization=Bearer%20{jwt}"],
    }
    if case.value == "cookie":
        named = (f"{name}={jwt}" for name in COOKIES)
        bench.shut(bare.adding_header("Cookie", "; ".join((*named, f"Authorization=Bearer {jwt}"))))
        return
    for query in names[case.value]:
        bench.shut(Request("POST", f"{REPLAY}?{query}", bare.headers, body, case.name))


GATEWAY_HEADERS = (
    *(("X-Internal", "true"), ("X-Internal-Request", "1"), ("X-Debug", "1"), ("X-Test", "true"), ("X-Admin", "true")),
    *(("X-Forwarded-For", "127.0.0.1"), ("X-Real-IP", "127.0.0.1"), ("X-Forwarded-Host", "localhost")),
    *(("X-Forwarded-User", "admin"), ("X-Auth-Request-User", "admin"), ("X-Remote-User", "admin")),
    *(("X-Role", "super_admin"), ("X-Client-Verify", "SUCCESS"), ("X-Authenticated", "true"), ("Via", "1.1 gateway")),
    *(("Origin", "https://admin.example"), ("Referer", "https://admin.example/"), ("Cookie", "role=super_admin")),
)
"""What a gateway writes for a caller whom it knows, and what anybody can write."""
CLIENTS = ("Mozilla/5.0 (X11; Linux x86_64)", "curl/8.5.0", "kube-probe/1.31", "k6/0.55", "Go-http-client/1.1", "node")
HOSTS = ("replay.default.svc.cluster.local", "replay.internal", "localhost")


@drill("drill/authentication/nothing-else-opens", covers=("A01", "A32"))
def test_nothing_else_opens(bench: Bench) -> None:
    """No User-Agent, Host or other header excuses a wrong or missing signature; and a right signature is accepted with
    at least one User-Agent other than the gate's.

    A bypass for a console, a probe or a neighbour is open to anyone who claims to be one; a service that lets in the
    gate alone is closed to every client.
    """
    body = bench.body()
    admitted = bench.opens(bench.signed(body))
    bench.guarded()
    ways = [("the headers of a gateway", GATEWAY_HEADERS), *((name, (("User-Agent", name),)) for name in CLIENTS)]
    ways += [(f"at {host}", (("Host", host),)) for host in HOSTS]
    for label, headers in ways:
        for wrong in (bench.with_signature(forged_signature(), body), post(REPLAY, body)):
            request = replace(wrong.labelled(label), headers=(*wrong.headers, *headers))
            answer = bench.http.send(request)
            bench.seen.failing = Exchange(request, answer)
            # a wall before the service may refuse such a client in its own words, or show a page of its own
            is_told_alike = bool(admitted.code) and _told(answer) == _told(admitted)
            is_read = is_told_alike or answer.json().get("target_count") is not None
            assert not is_read, (
                f"{label}: observed {answer.status} {answer.code} without a right signature; allowed: 401"
            )
            bench.seen.count()
    words = http_words()
    if words is None or "user-agent" not in {name.lower() for name, _ in words.extra_headers}:  # else a wall goes by it
        _lets_clients_in(bench, body, admitted)
    bench.seen.failing = None


def _told(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.code


def _lets_clients_in(bench: Bench, body: bytes, admitted: Answer) -> None:
    """A wall before the service may keep out some of them, and none keeps out all whom it lets in without a name."""
    refused = []
    for name in CLIENTS:
        signed = bench.signed(body)
        request = replace(signed.labelled(name), headers=(*signed.headers, ("User-Agent", name)))
        answer = bench.http.send(request)
        if _told(answer) != _told(admitted) == _told(bench.http.send(signed)):
            bench.seen.failing = Exchange(request, answer)
            refused.append(f"{name}: {answer.status} {answer.code}")
        bench.seen.count()
    assert len(refused) < len(CLIENTS), (
        f"observed that each of {len(CLIENTS)} User-Agents keeps a right signature out, the last {refused[-1]};"
        " allowed: the answer to a request without one"
    )


@drill("drill/authentication/accepted-after-forgeries", phase="first", covers=("A01",))
def test_accepted_after_forgeries(bench: Bench) -> None:
    """A correctly signed request is accepted before, between and after forged ones.

    Anyone locks the operators out by sending rubbish.
    """
    body = bench.body()
    bench.opens(bench.signed(body, "before"))
    forged = [bench.with_signature(f"{index:064x}", body, "forged") for index in range(12)]
    bench.shut_all(forged[:6])
    bench.accepted(bench.signed(body, "between"))
    bench.shut_all(forged[6:])
    bench.accepted(bench.signed(body, "after"))


@drill("drill/authentication/unknown-company-forbidden", severity=Severity.WARN, covers=("A25",))
def test_unknown_company(bench: Bench) -> None:
    """A signed request for a company that does not exist is refused with 403 `forbidden`, like one for a foreign one,
    whatever the version of its UUID.

    The answer tells which tenants exist, or something is done for nobody.
    """
    bench.guarded()
    bench.seen.control("without credentials the same is refused")
    for version in (4, 7):
        nobody = replace(bench, company=new_id("company", version))
        request = nobody.signed(label=f"signed, a company that does not exist, version {version}")
        answer = bench.http.send(request)
        if answer.status == 404:  # without credentials the path answered: it is there
            bench.seen.failing = Exchange(request, answer)
            raise AssertionError(f"{request.label}: observed 404 {answer.code}; allowed: 403 forbidden")
        bench.seen.expect(request, answer, 403, "forbidden")


@drill("drill/authentication/new-company-is-known-at-once", where=Where.STAGING, needs=SQL, covers=("A25",))
def test_new_company_is_known_at_once(scene: Scene) -> None:
    """A company that was refused as unknown is served as soon as its row is there.

    A service that remembers whom it does not know locks a new customer out until it is restarted.
    """
    told = scene.tenants.on_create

    def ask(company: str) -> None:
        if told:
            told(company)
        scene.everywhere(company, 403, "forbidden", label="before there is the company", control=True, dry_run=True)

    scene.tenants.on_create = ask
    try:
        company = scene.company()
    finally:
        scene.tenants.on_create = told
    scene.everywhere(company, label="as soon as there is the company", dry_run=True)


@pytest.mark.rewrites
@check(
    "drill/authentication/removed-company-is-unknown", severity=Severity.WARN, needs=SQL, after=SIGNED, covers=("A25",)
)
def test_removed_company_is_unknown(scene: Scene) -> None:
    """A company that was served is refused like any unknown one once its row is gone, and so are its events.

    A service that remembers whom it knows works on for a customer that has left until it is restarted.
    """
    company = scene.company()
    scene.everywhere(company, label="while there is the company", control=True, dry_run=True)
    scene.emit(company)
    scene.tenants.remove([company])
    scene.everywhere(company, 403, "forbidden", label="after the company was removed", dry_run=True)
    scene.expect(scene.event_request(company), 403, "forbidden")


@drill("drill/authentication/one-refusal", severity=Severity.WARN, covers=("A25",))
def test_one_refusal(bench: Bench) -> None:
    """A 401 has the same body whatever was wrong, of replays, reads and events, and the same headers for a known and an
    unknown company.

    The answer tells an attacker how near a forgery came, or which tenants exist.
    """
    body = bench.body()
    bench.opens(bench.signed(body))
    known = probes.for_nobody(bench.target.test_company_id or bench.company, max=10)
    wrong = {
        "no credentials": post(REPLAY, body),
        "wrong digits": bench.with_signature(forged_signature(), body),
        "no hex": bench.with_signature("zz", body),
        "known company": bench.with_signature(forged_signature(), known),
        "stale v2": bench.signed_v2(body, age_s=4000),
        "no token": bench.with_token("abc", body),
        "unsigned token": bench.with_token("eyJhbGciOiJub25lIn0.e30.", body),
    }
    answers = {name: bench.shut(request.labelled(name)) for name, request in wrong.items()}
    bench.one_body(answers)
    bare = [Request("GET", bench.signed_read().path)] * current().shows_runs
    bare += [bench.event().without_header(SIGNATURE)] * current().takes_events
    for request in bare:
        message, age = request.body or request.path.encode(), bench.clock.now() - 4000
        signatures = {"wrong digits": forged_signature(), "stale v2": sign_v2(bench.signer.secret, message, age)}
        tried = {name: request.adding_header(SIGNATURE, one) for name, one in signatures.items()}
        tried |= {"no credentials": request, "no token": request.adding_header("Authorization", "Bearer abc")}
        told = "an event" if request.body else "a read"
        bench.one_body({name: bench.shut(one.labelled(f"{told}, {name}")) for name, one in tried.items()})
    known_ones, others = (answers[n].header_names for n in ("known company", "wrong digits"))
    assert known_ones == others, f"the headers of a 401 are {known_ones} for a known company, else {others}"
