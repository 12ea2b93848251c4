"""One round of replays and events in many combinations, so that the journal has some whatever else was drilled.

Three tenants take part side by side: two are served, in step, and one is refused.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import cycle, product, zip_longest
from typing import Any

from drills.workbench.credentials import REPLAY
from drills.workbench.journal import Journal
from drills.workbench.rate_limit import Limit, admitted, client_addresses
from drills.workbench.scene import Scene, new_key
from gates.deployment.dialect.current import current
from gates.deployment.ids import ids_have_spellings, new_id
from gates.deployment.requests import (
    BY_A_PROXY,
    SIGNATURE,
    Answer,
    Request,
    encode_body,
    forged_signature,
    post,
    replay_fields,
    token_post,
)
from gates.deployment.sql.kept import borrowed
from gates.deployment.tenants.tenants import OUTBOX_FLAG, REPLAY_FLAG
from gates.text.foreign import json_object

Fields = dict[str, Any]
Sign = Callable[[Fields], Request]
"""The members of a body -> a request with some credentials."""

ERRORS = ("ledger-a", "ledger-b")
NOTHING: Fields = {"max": current().limit("batch"), "error_type": "ledger-none"}
"""A replay that finds no item."""
BOTH = ((True, False), (False, True))
"""Dry run or not, forced or not."""
TWICE = 2
MOST_TOLD = 3
AT_ONCE = 6
COUNTED = ("feature_disabled", "idempotency_key_reused", "agents_paused", "budget_exhausted")
"""Codes of steps after the rate limit, in their order."""
AT_A_GATE = {"unauthenticated": 401, "forbidden": 403}
"""Refusals that a gateway before the service may tell in words of its own."""


@dataclass
class Swept:
    """What a round of replays showed. moved: items that it moved; mischarged: tenants that were charged for
    others; refused: replays that were refused as was due; admitted: those that were not refused; odd: those that were
    answered otherwise, which shows neither; late: those that were refused when the reason was gone; counted: how many
    were looked up in the rate limit; miscounted: those that it holds too often or not at all.
    """

    moved: int = 0
    mischarged: list[str] = field(default_factory=list)
    refused: int = 0
    odd: list[str] = field(default_factory=list)
    admitted: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    counted: int = 0
    miscounted: list[str] = field(default_factory=list)

    def __add__(self, other: "Swept") -> "Swept":
        return Swept(*(ours + theirs for ours, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class SweptTenant:
    """A round of replays of one tenant. chosen: each way to choose items; signs: by turns, for what has no other."""

    limit: Limit
    company: str
    chosen: tuple[Fields, ...]
    signs: Iterator[Sign]
    swept: Swept = field(default_factory=Swept)

    def send(self, fields: Fields, sign: Sign | None = None, *, resets: bool = True) -> Answer:
        """One replay, whatever is answered."""
        return _sent([(self, fields)], sign, resets=resets)[0]

    def request(self, fields: Fields, sign: Sign | None = None) -> Request:
        """A replay; a forced one spells its company in capitals."""
        company = self.company.upper() if fields.get("force") and ids_have_spellings() else self.company
        return (sign or next(self.signs))(replay_fields(company, **self.limit.known(**fields)))

    def look_up(self, asked: Sequence[tuple[Fields, Answer]]) -> None:
        """Whether the replays since the rate limit was reset count against it as they should."""
        due = [_counts(answer) for _, answer in asked]
        if None in due or not self.limit.has_rows:
            return
        self.swept.counted += len(asked)
        if (hits := self.limit.hits(self.company)) != due.count(True):
            fields, answer = asked[0]
            said = f"{fields} was answered {answer.status} {answer.code}".rstrip()
            more = f" and {len(asked) - 1} like it" if len(asked) > 1 else ""
            self.swept.miscounted.append(f"{said}{more}, and counted {hits} times where {due.count(True)} was due")

    def refused(
        self,
        code: str,
        key: str,
        sign: Sign | None = None,
        *,
        pairs: bool = True,
        resets: bool = True,
        changed: Fields | None = None,
    ) -> None:
        """Ask in each way, or so that each pair of members is met, for what must be refused with this code; `changed`:
        fields of all of them.
        """
        choices = enumerate((*self.chosen, {"max": 1, "idempotency_key": key}))
        every = [
            {**choice, "dry_run": dry, "force": force, **(changed or {})}
            for (number, choice), dry, force in product(choices, *BOTH)
            if not pairs or (number + dry + force) % 2
        ]
        at_once = AT_ONCE if resets and code not in COUNTED else 1
        for first in range(0, len(every), at_once):
            asked = every[first : first + at_once]
            answers = _sent([(self, one) for one in asked], sign, resets=resets)
            for fields, answer in zip(asked, answers, strict=True):
                self._judge(code, fields, answer)

    def _judge(self, code: str, fields: Fields, answer: Answer) -> None:
        if answer.code == code or answer.status == AT_A_GATE.get(code):
            self.swept.refused += 1
            return
        said = f"{_short(fields)} was answered {answer.status} {answer.code}".rstrip()
        first = 0 if code == "rate_limited" else COUNTED.index(code) if code in COUNTED else len(COUNTED)
        later = COUNTED[first:]
        passed = answer.status < 300 or answer.code in later
        (self.swept.admitted if passed else self.swept.odd).append(f"{said} where {code} was due")

    def apart(self, code: str, free: "SweptTenant") -> None:
        """Ask at the same time for this tenant and for one that nothing refuses: each has its own answer."""
        fields = {**NOTHING, "dry_run": True}
        asked = [(one, fields) for _ in range(min(AT_ONCE, admitted())) for one in (self, free)]
        for (one, _), answer in zip(asked, _sent(asked), strict=True):
            if one is self:
                self._judge(code, fields, answer)
            elif answer.code == code:
                self.swept.late.append(f"{fields} was answered {answer.status} {code} beside another tenant's call")

    def open(self, code: str, sign: Sign | None = None) -> None:
        """The reason for this code is gone: a replay and a dry run are not refused with it any more."""
        for fields in ({**NOTHING, "dry_run": True}, NOTHING):
            answer = self.send(fields, sign)
            if answer.code == code:
                self.swept.late.append(
                    f"{fields} was answered {answer.status} {code} when there was no reason any more"
                )

    def beside(self, own: Sign, foreign: Sign) -> None:
        """Ask as two administrators at the same time: each has his own rights."""
        self.limit.reset_limit(self.company)
        fields = replay_fields(self.company, **self.limit.known(**NOTHING, dry_run=True))
        asked = [sign(fields) for _ in range(AT_ONCE) for sign in (own, foreign)]
        answers = self.limit.http.burst(asked)
        if not any(isinstance(answer, Answer) for answer in answers):
            self.swept.odd.append(f"{len(asked)} calls at the same time had no answer: {answers[0]}")
        for number, answer in enumerate(answers):
            if not isinstance(answer, Answer):
                continue
            if number % 2 and answer.status < 300:
                self.swept.admitted.append(
                    f"{fields} was answered {answer.status} beside another where forbidden was due"
                )
            if not number % 2 and answer.code == "forbidden":
                self.swept.late.append(f"{fields} was forbidden to its own company beside another's call")


def replays(limit: Limit, journal: Journal) -> Swept:
    """Replays and dry runs of each choice of items, repeated, under a reused key, and refused."""
    plain, keyed, shut = tenants = _tenant(limit), _tenant(limit), _tenant(limit)
    with borrowed(limit.target.database_url) as own, ThreadPoolExecutor(1) as beside:
        done = beside.submit(_refused, replace(shut, limit=replace(limit, db=own)))
        _admitted(plain, keyed)
        done.result()
    journal.look(limit.db, [one.company for one in tenants])
    return plain.swept + keyed.swept + shut.swept


def _tenant(limit: Limit) -> SweptTenant:
    company = limit.company("ledger")
    items = {error: limit.add_items(company, 8, error_type=error) for error in ERRORS}
    return SweptTenant(
        limit,
        company,
        (
            {"max": 1},
            {"dlq_ids": items["ledger-a"][-1:]},
            {"max": 2, "error_type": "ledger-b"},
            {"dlq_ids": [*items["ledger-b"][-1:], new_id("item")], "error_type": "ledger-b"},
            NOTHING,
        ),
        _by_turns(limit, company),
    )


def _by_turns(limit: Limit, company: str) -> Iterator[Sign]:
    """Each way to sign that is accepted, one place further in each round: each meets each kind of request."""
    plain: Sign = lambda fields: limit.signer.post(REPLAY, encode_body(fields), "a replay")  # noqa: E731
    fields = replay_fields(company, **limit.known(**NOTHING, dry_run=True))
    if not limit.claims("dry-run"):
        return cycle([plain])
    others = [*_signed(limit, company), *filter(None, [_token_of(limit, company)])]
    answers = limit.http.burst([sign(fields) for sign in others])
    taken = [s for s, a in zip(others, answers, strict=True) if isinstance(a, Answer) and a.status == 200]
    signs = [plain, *taken]
    return cycle(signs[(at + turn) % len(signs)] for turn in range(len(signs)) for at in range(len(BOTH) ** 2))


def _admitted(plain: SweptTenant, keyed: SweptTenant) -> None:
    """Replays of each kind by one tenant, and in step with them those under a key that is used again by another."""
    first = [{**choice, "dry_run": d, "force": f} for choice, d, f in product(plain.chosen, *BOTH)]
    again, lost = list[Fields](), set[str]()
    for choice in keyed.chosen:
        key = new_key()
        again += [{**choice, "idempotency_key": key, **changed} for changed in ({}, {}, {}, {"force": True})]
    for pair in zip_longest(first, again):
        asked = [(one, fields) for one, fields in zip((plain, keyed), pair, strict=True) if fields is not None]
        for (one, fields), answer in zip(asked, _sent(asked), strict=True):
            if answer.status == 200 and not fields.get("dry_run") and not answer.json().get("duplicate"):
                one.swept.moved += len(answer.json().get("items") or ())
            if _is_a_proxys(answer):
                lost.add(one.company)
    for one in (plain, keyed):
        moved = one.swept.moved
        if one.company in lost or not one.limit.claims("budgets"):
            continue
        if (used := one.limit.used(one.company)) != (moved, moved):
            day, month = used
            said = f"{moved} items were moved, {day} charged for the day, {month} the month"
            one.swept.mischarged.append(said)


def _sent(
    asked: Sequence[tuple[SweptTenant, Fields]], sign: Sign | None = None, *, resets: bool = True
) -> list[Answer]:
    """These replays at the same time. resets: the rate limit is reset before them, and they are looked up in it."""
    tenants = {one.company: one for one, _ in asked} if resets else {}
    for one in tenants.values():
        one.limit.reset_limit(one.company)
    answers = list[Answer]()
    for answer in asked[0][0].limit.http.burst([one.request(fields, sign) for one, fields in asked]):
        if not isinstance(answer, Answer):
            raise answer
        answers.append(answer)
    for one in tenants.values():
        one.look_up([(fields, a) for (of, fields), a in zip(asked, answers, strict=True) if of is one])
    return answers


def _counts(answer: Answer) -> bool | None:
    """Whether a replay that was answered so counts against the rate limit; None where that is not promised."""
    if answer.status == 200 or answer.code in COUNTED:
        return True
    return False if answer.status in {400, 401} or answer.code == "forbidden" else None


def _refused(made: SweptTenant) -> None:
    """Replays that are refused: for who asks or what for, then for what their tenant is in."""
    _refused_by_who_asks(made)
    _refused_by_the_state(made)


def _refused_by_who_asks(made: SweptTenant) -> None:
    """Forged, another company's, too large, or over the limit, also under a key that has a stored answer."""
    limit, key = made.limit, new_key()
    made.send({"max": 1, "idempotency_key": key})
    made.refused("unauthenticated", key, _forged())
    for sign in _signed(limit, made.company):
        for dry in (True, False):
            made.send({**NOTHING, "dry_run": dry}, sign)
    if (own := _token_of(limit, made.company)) and (foreign := _token_of(limit, new_id("company"))):
        made.open("forbidden", own)
        made.refused("forbidden", key, foreign)
        made.beside(own, foreign)
        made.open("forbidden", own)
        made.open("forbidden")
    made.refused("invalid_request", key, changed={"surplus": 1})
    many = current().limit("batch") + 1
    for name, value in (("max", many), ("dlq_ids", [new_id("item") for _ in range(many)])):
        if name not in current().lacking:
            made.refused("batch_too_large", key, changed={name: value})
    if not limit.has_rows:
        return
    if not _use_up(made):
        return
    before = len(made.swept.admitted)
    for changed in ({}, {"max": 2}):  # with the latter the key is reused
        made.refused("rate_limited", key, resets=False, changed=changed)
    if len(client_addresses(limit.db, made.company)) > 1:
        del made.swept.admitted[before:]  # each address of ours has a limit of its own
    made.open("rate_limited")


def _use_up(made: SweptTenant) -> bool:
    """Whether the tenant's limit is used up: a call that a proxy answered may not have reached the service."""
    made.limit.reset_limit(made.company)
    answers = [made.send({"max": 1}, resets=False) for _ in range(admitted())]
    lost = [f"a call before the limit was answered {a.status}" for a in answers if _is_a_proxys(a)]
    made.swept.odd.extend(lost)
    return not lost


def _is_a_proxys(answer: Answer) -> bool:
    """Whether it may not be the service's, so that nobody knows whether the call had its effect."""
    return answer.status in BY_A_PROXY or answer.is_in_front


def _refused_by_the_state(made: SweptTenant) -> None:
    """A spent day, or month, then a pause as well, then a flag as well: the earliest step refuses."""
    limit, company, other = made.limit, made.company, made.limit.company("ledger")
    free = replace(made, company=other, signs=_by_turns(limit, other))
    if limit.claims("budgets"):
        limit.budget(company, daily_limit=1, daily_used=1, monthly_used=1)
        made.apart("budget_exhausted", free)
        limit.budget(company, monthly_limit=1, daily_used=1, monthly_used=1)
        made.refused("budget_exhausted", new_key(), pairs=False)
    if limit.claims("pause"):
        limit.pause(company)
        made.apart("agents_paused", free)
        made.refused("agents_paused", new_key(), pairs=False)
    if limit.claims("flags"):
        for flag in (REPLAY_FLAG, OUTBOX_FLAG):
            limit.set_flag(company, flag, enabled=False)
            made.apart("feature_disabled", free)
            made.refused("feature_disabled", new_key(), pairs=False)
            limit.set_flag(company, flag, enabled=True)
            made.open("feature_disabled")
    if limit.claims("pause"):
        limit.pause(company, on=False)
        made.open("agents_paused")
    if limit.claims("budgets"):
        limit.budget(company)
        made.open("budget_exhausted")


def _token_of(scene: Scene, company: str, path: str = REPLAY) -> Sign | None:
    """Signs with a token of a company's administrator, where tokens can be minted."""
    token = scene.token_of(company)
    return (lambda fields: token_post(path, fields, token, "by token")) if token else None


def _signed(scene: Scene, company: str) -> list[Sign]:
    """Ways to sign beside the one of all others: by v2, and that with a token, too."""
    timed: Sign = lambda fields: scene.signer.v2(REPLAY, encode_body(fields), "by v2")  # noqa: E731
    if (own := _token_of(scene, company)) is None:
        return [timed]
    return [timed, lambda fields: timed(fields).adding_header(*own(fields).headers[-1]).labelled("by v2 and token")]


def _forged() -> Sign:
    """Signs with nobody's secret."""
    return lambda fields: post(REPLAY, encode_body(fields), (SIGNATURE, forged_signature()), label="forged")


def _short(fields: Fields) -> Fields:
    """The fields, of many ids their number alone."""
    ids = fields.get("dlq_ids") or ()
    return {**fields, "dlq_ids": f"{len(ids)} ids"} if len(ids) > TWICE else fields


def events(scene: Scene, journal: Journal) -> list[str]:
    """Events with and without a key and an id, sent twice, by the outbox and by the direct path; those that were taken
    from an administrator of another company, too.
    """
    company, taken = scene.company("ledger"), list[str]()
    own, foreign = (_token_of(scene, one, "/events") for one in (company, new_id("company")))
    for by_outbox in (True, False) if scene.claims("flags") else (True,):
        if not by_outbox:
            scene.set_flag(company, OUTBOX_FLAG, enabled=False)
        for key, event_id in product((None, "k"), (None, new_id("event"))):
            for turn in range(TWICE):
                payload = {"n": by_outbox, "of": ["ledger", key], "ünï": 1.5}
                request = scene.event_request(company, key=key, event_id=event_id, payload=payload)
                by_token = turn != (key is None)  # the first or the second
                scene.http.send(own(json_object(request.body)) if own and by_token else request)
            if foreign and (answer := scene.http.send(foreign(json_object(request.body)))).status < 300:
                taken.append(f"key {key}, event_id {event_id} by another company's token: answered {answer.status}")
    journal.look(scene.db, [company])
    return taken
