"""The order of findings: the worst harm to users first, and each cause before its consequences. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from gates.evidence import CHARGED, UNREADABLE, WAITED
from gates.verdict import EFFECT_ORDER, Finding, blocked_by_cause

NAMES_THE_CONSTRAINT = "sql/spot/replay-runs-unique"

EVERY = "drill/proof/valid-signature-accepted"
"""It fails, or is unknown, where every replay is a server error: the load sees only that many of its requests fail."""

PREREQUISITES = "preflight/*"
"""If one of these, or EVERY, is unknown and blocks others, it is listed as if it had failed: mend it first."""

FIRST = (
    UNREADABLE + "*",
    PREREQUISITES,
    NAMES_THE_CONSTRAINT,  # without it every replay may fail: the checklist's query only sees that it is missing
    "load/answers_mixed/*",  # then drills judge answers to other requests, and fail at random
    EVERY,
    "drill/authentication/signed-accepted",
    "drill/tokens/admin-accepted",
    "drill/outbox/delivered-once",
    "queue/proof/*",
)
"""If one of these fails, users get nothing, and most other failures are its consequences."""

HARM = (
    ("gate",),
    ("tenancy", "authentication", "tokens"),  # somebody reads or does what is forbidden
    ("queue", "outbox", "idempotency", "dead-letters", "replay"),  # effects are lost, or come twice
    ("safety-rails", "dry-run", "rate-limit", "budgets", "pause", "flags"),  # limits on an operator's mistakes
    ("audit",),
    ("http", "identity", "observability"),
    ("schema",),
)
"""Areas of the contract by the harm of their failure, the worst first. A user's own checks are of the second tier."""

REFUSED_BY = {
    "agents_paused": "pause",
    "feature_disabled": "flags",
    "budget_exhausted": "budgets",
    "idempotency_key_reused": "idempotency",
    "in_progress": "idempotency",  # a key that outlives its request, like a session lock behind a pooler
}
"""Error code of a refusal -> its area. If a check of that area fails with this code, the other checks that get it are
its consequences: a pause that stops everybody also hides what the checks of dead letters look for.
"""

NOT_FOUND = {
    "drill/outbox/status-of-an-event": "GET /events answered 404 not_found",
    "drill/lifecycle/run-counts-add-up": "GET /dlq-replay answered 404 not_found",
}
"""Check that reads what it made itself -> the answer by which that read is not there. Then bad credentials get it, too,
and nothing was opened to them.
"""

PLAIN_AREA = "tenancy"
"""If a token of one tenant opens another's data, so does each odd spelling of a claim. Within a tier, drills that
simply ask for the other tenant come first.
"""

SERVER_ERROR = re.compile(r" answered 5\d\d$")
"""A drill that met this learnt nothing about its promise. A drill that saw a breach names the fault better."""

WRONG_STATUS = re.compile(r" comes (?:with \d{3} )?in place of \d{3}$")
"""The symptom of an answer of which nothing but the status is wrong (`gates.contract.remedies.altered`)."""

PROOF, FAILED, PROVED = "drill/proof/", "load/http_req_failed/", 2
"""The proof drill asks the plainest question about each promise, and `http_req_failed` whether requests fail at all.

If a limit is missing, drills about lost effects stumble over it too. So these two are sorted at this tier of HARM at
the latest.
"""

MANY = ("load/", "alert/", "cohort/")
"""Checks of many calls or rows: they see that something goes wrong. A drill that also fails shows what it is."""

QUEUES = ("queue/workers", "queue/stuck-claims", "queue/standstill", "queue/", "queue/load/")
SLOW, STOPPED = "drill/outbox/effect-within-two-seconds", "drill/outbox/poison-holds-no-other-tenant"
DONE, CROWD = "drill/outbox/failing-is-not-processed", "drill/outbox/crowd-once-each"
REPLAYED = "drill/dlq/replayed-item-is-resolved"
SPOT, MANIFEST, LEDGER, SIGHT = "sql/spot/", "sql/manifest/", "drill/ledger/", "sql/rls/"
OPENS = ("sql/spot/rls-", "sql/spot/policies-")
"""A table named by these checks is open: that is why wrong logins see its rows."""
EXPLAINS = {
    "preflight/ready": "GET /readyz answered 503",
    "preflight/release": r"drill/identity/one-release-on-every-instance|load/checks\{operation:probe\}/rate",
    NAMES_THE_CONSTRAINT: "POST /dlq-replay answered 5..",  # INSERT ... ON CONFLICT finds no key to conflict with
    "load/companies_failing/count": "POST /dlq-replay answered 5..",  # drills whose company is such a one
    f"{FAILED}rate": ".* answered 5..",  # drills whose request is such a one
    "drill/budgets/charged-by-items-moved": CHARGED,
    "drill/budgets/*": CHARGED,  # replays of others are charged wrongly
    "sql/spot/flags-decided-by-formula": ".* feature_disabled",
    "drill/flags/bucket-formula": ".* feature_disabled",
    "sql/spot/fleet-not-paused": ".* agents_paused",
    "drill/proof/duplicate-short-circuits": "sql/spot/run-counts",  # a run that is started again
    "drill/audit/chain-*": "sql/spot/audit-(chain|heads)",  # the service links its own rows wrongly: nobody forged one
    "drill/flags/*-is-wired": ".* feature_disabled",  # an instance that keeps an old answer refuses what is on again
    "drill/pause/counts-from-the-next-request": ".* agents_paused",
}
"""Pattern of checks -> pattern of what their failure causes: symptoms, or ids of checks without a symptom.

A check is the cause if its effect is at least as grave. If several explain a symptom, the first pattern wins, and
within a pattern the plainest check.
"""
PLAINEST = (
    *(SPOT, SIGHT, "sql/", PROOF, SLOW, STOPPED, DONE, CROWD, REPLAYED, "drill/", LEDGER),
    *(*QUEUES, FAILED, "load/", "alert/", "cohort/"),
)
"""Which of several failures in a tier names the fault best.

A missing constraint is named by its spot check: the manifest only sees a difference, and the drills show consequences.
A slow relay is named by the time that one event takes; a relay stopped by a poison event, by the poison drill; one that
marks failed events as done, by a failing event; one that stops under many events, by the crowd; endless replays, by the
replay of one item. Drills that wait for effects only see that nothing came. The ledger looks at the exchanges of all
drills, not at one promise.
"""

ANY_DRILL = PLAINEST.index("drill/")
"""From this place on, a check that waited in vain comes after those that saw a breach."""


def in_order(findings: Sequence[Finding], areas: Mapping[str, str]) -> list[Finding]:
    """The findings by effect, causes first, then by harm; among equals the shortest, plainest name first.

    areas: check -> its area. A failure comes before unknowns, except for a prerequisite of others; among unknowns, the
    one with the most dependents comes first.
    """
    findings, of_objects = _of_one_object(findings, areas)
    findings, of_statuses = _of_one_status(findings)
    cause = _causes(findings, areas) | of_objects | of_statuses
    caused = _under_one_cause(findings, cause)
    behind = blocked_by_cause(caused)
    met = {f.check for f in findings if SERVER_ERROR.search(f.symptom)}
    vain = {f.check for f in findings if f.symptom == WAITED}

    def weight(check: str, *, failed: bool) -> tuple[Any, ...]:
        area = areas.get(check, "")
        plain = _plainness(check)
        harm, blocks, around = _tier(check, area), -behind[check], area != PLAIN_AREA
        saw_nothing = check in vain and harm >= len(FIRST) and plain >= ANY_DRILL
        is_of_many = check.startswith(MANY) and harm >= len(FIRST)
        own = (is_of_many, saw_nothing, harm, plain, check in met, around)
        return (*own, blocks) if failed else (blocks, *own)

    heaviest: dict[str, tuple[Any, ...]] = {}
    """Symptom -> the rank of its cause: that of the gravest failure it brings about."""
    for one in caused:
        if one.symptom and one.outcome == "fail":
            own = weight(one.check, failed=True)
            heaviest[one.symptom] = min(own, heaviest.get(one.symptom, own))

    def gravity(one: Finding) -> tuple[object, ...]:
        is_first = one.check == EVERY or fnmatchcase(one.check, PREREQUISITES)
        failed = one.outcome == "fail" or (behind[one.check] > 0 and is_first)
        lead = cause.get(one.symptom, one.check)  # consequences of a failure follow it directly
        unread = one.check.startswith(UNREADABLE)
        before = _effect(one), bool(one.blocked_by), not unread, not failed
        heavy = heaviest.get(one.symptom) or weight(one.check, failed=failed)
        return *before, heavy, len(lead), lead, lead != one.check, one.check

    return sorted(caused, key=gravity)


def _of_one_object(findings: Sequence[Finding], areas: Mapping[str, str]) -> tuple[list[Finding], dict[str, str]]:
    """Give findings about the same object one symptom, and name the check that is its cause.

    A spot check leads others of its area, a manifest that differs only in the objects that it names, and the sights of
    rows of the tables whose security it misses. What explains a symptom leads the checks that show it.
    """
    spots = [f for f in findings if f.outcome == "fail" and f.check.startswith(SPOT) and not f.symptom and _named(f)]
    spots.sort(key=lambda f: (_effect(f), _tier(f.check, areas.get(f.check, "")), f.check))
    lead: dict[str, str] = {}
    for one in spots:
        alike = (s for s in spots if _named(s) == _named(one) and areas.get(s.check) == areas.get(one.check))
        lead[one.check] = next(alike).check
    for one in findings:
        if one.outcome == "fail" and one.check.startswith((MANIFEST, SIGHT)):
            why = OPENS if one.check.startswith(SIGHT) else SPOT
            likely = (s for s in spots if s.check.startswith(why))
            worse = (s for s in likely if _effect(s) <= _effect(one))
            about = next((s for s in worse if _is_all_about(one, _named(s))), None)
            lead |= {one.check: lead[about.check]} if about else {}
    shown: dict[str, str] = {}
    broken = sorted((f for f in findings if f.outcome == "fail"), key=_plain)
    for one, explained in ((f, EXPLAINS[like]) for like in EXPLAINS for f in broken if fnmatchcase(f.check, like)):
        harm = [f for f in findings if re.fullmatch(explained, f.symptom or f.check)]
        gravest = min((_effect(f) for f in harm if f.outcome == "fail"), default=len(EFFECT_ORDER))
        if harm and _effect(one) <= gravest:
            led = [shown[what] for f in harm if (what := f.symptom or f.check) in shown]
            if one.check.startswith(MANY):
                led += [f.check for f in harm if f.check == EVERY and f.outcome == "fail"]
            first = next(iter(led), lead.get(one.check, one.check))
            lead[one.check] = first
            shown |= {f.symptom or f.check: first for f in harm}
    joined = {by for check, by in lead.items() if check != by} | set(shown.values())
    of = {f.check: by for f in findings if (by := shown.get(f.symptom or f.check) or lead.get(f.check)) in joined}
    told = [replace(f, symptom=f"what {of[f.check]} names") if f.check in of else f for f in findings]
    return told, {f"what {by} names": by for by in joined}


def _of_one_status(findings: Sequence[Finding]) -> tuple[list[Finding], dict[str, str]]:
    """Of all that met the same wrong status, the plainest of the gravest is the cause, and says so."""
    met = [f for f in findings if WRONG_STATUS.search(f.symptom)]
    met.sort(key=lambda f: (_effect(f), f.outcome != "fail", _plain(f)), reverse=True)
    lead = {f.symptom: f.check for f in met}
    told = {f.check: replace(f, message=f"{f.symptom}: {f.message}") for f in met if lead[f.symptom] == f.check}
    return [told.get(f.check, f) for f in findings], lead


def _named(spot: Finding) -> frozenset[str]:
    """The objects named by the rows of a spot check."""
    rows = spot.witness if isinstance(spot.witness, list) else []
    return frozenset(str(row.get("subject", "")).removeprefix("public.") for row in rows if isinstance(row, Mapping))


def _is_all_about(many: Finding, named: Iterable[str]) -> bool:
    """Whether all that was seen is listed, and each is one of these objects or belongs to one."""
    told = [str(text).removeprefix("public.") for text in many.witness] if isinstance(many.witness, list) else []
    objects = "|".join(re.escape(name.partition(" ")[0]) for name in named)
    return bool(told) and len(told) == many.observed and all(re.match(rf"(?:{objects})[.: ]", text) for text in told)


def _causes(findings: Sequence[Finding], areas: Mapping[str, str]) -> dict[str, str]:
    """Symptom -> the failure that explains it: one after which users get nothing, a check of the refusing area, or one
    that does not find its own.
    """
    broken = [
        f
        for f in findings
        if (f.outcome == "fail" or f.check == EVERY)
        and f.symptom
        and (
            _tier(f.check, "") < len(FIRST)
            or REFUSED_BY.get(f.symptom.rpartition(" ")[2], "-") == areas.get(f.check)
            or NOT_FOUND.get(f.check) == f.symptom
        )
    ]
    broken.sort(key=lambda f: (_tier(f.check, ""), *_plain(f)), reverse=True)
    return {f.symptom: f.check for f in broken}  # the plainest comes last and wins


def _under_one_cause(findings: Sequence[Finding], cause: Mapping[str, str]) -> list[Finding]:
    """Put findings with a symptom behind its cause: unknowns become blocked by it, failures keep the symptom, by which
    reports group them. A symptom without a known cause is removed.
    """
    found = []
    for one in findings:
        by = cause.get(one.symptom, "")
        if one.outcome == "unknown" and by not in {"", one.check} and not one.blocked_by:
            found.append(replace(one, blocked_by=by, symptom="", ends_when=f"{by} passes"))
        else:
            found.append(one if by else replace(one, symptom=""))
    return found


def _effect(finding: Finding) -> int:
    return EFFECT_ORDER.index(finding.effect)


def _plain(finding: Finding) -> tuple[int, int, str]:
    return _plainness(finding.check), len(finding.check), finding.check


def _plainness(check: str) -> int:
    like = max((p for p in PLAINEST if check.startswith(p)), key=len, default="")
    return PLAINEST.index(like) if like else len(PLAINEST)


def _tier(check: str, area: str) -> int:
    first = next((i for i, pattern in enumerate(FIRST) if fnmatchcase(check, pattern)), None)
    if first is not None:
        return first
    tier = next((i for i, areas in enumerate(HARM) if area in areas), 1)
    return len(FIRST) + (min(tier, PROVED) if check.startswith((PROOF, FAILED)) else tier)
