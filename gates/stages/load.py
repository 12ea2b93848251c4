"""The load stage: the load that a run was given, and the clean-up after it."""

import dataclasses
import datetime as dt
from collections.abc import Callable
from pathlib import Path

from gates.deployment.credentials import UNUSABLE
from gates.deployment.redaction import hidden, redact_text
from gates.deployment.target import Target
from gates.evidence import VARIABLES, Evidence, Outcome, stamp
from gates.stages.context import Context, Progress, StageReport, now
from gates.stages.preflight import refused_by_now
from gates.stages.preflight.credentials import ADMIN, SIGNING
from gates.stages.watchdog import known_shut

LOAD = ("load/",)
COUNTED = tuple(f"load/{metric}/" for metric in ("events_lost", "runs_lost", "answers_mixed", "companies_failing"))
"""Checks whose failure no other work on the target explains."""
Loader = Callable[[Target, Path], list[Evidence]]
"""Loads the target, writes into the folder, and returns evidence for each check of the load."""


def load(context: Context, loader: Loader | None, *, beside_drills: bool = False) -> list[StageReport]:
    """The load stage. Without a load, or if the target refuses its credentials, its checks are unknown. A credential
    without an answer does not stop it: a release that is too slow or busy to answer must be seen to be so.

    beside_drills: they load the target, too. If it does not pass then, it must be loaded again, alone: there is no
    report yet, and only what was counted has failed.
    """
    expected = context.applicable(LOAD)
    if not expected and loader is not None and context.scope.is_queue:
        return []
    credential = (SIGNING if context.target.hmac_secret else ADMIN).id
    refused = _unaccepted(context, credential)
    if refused and refused.observed in UNUSABLE:
        context.block(expected, refused)
        context.progress(Progress("load", unknown=len(expected), expected=len(expected), done=True))
        return [StageReport("load", 0.0, 0, refused.message)]
    started = now()
    context.progress(Progress("load", expected=len(expected)))
    error = "" if loader else "the load stage is not installed"
    found: list[Evidence] = []
    if loader is not None:
        found = [_stamped(e, context.target, started) for e in loader(context.target, context.out)]
        if refused and (again := refused_by_now(context, credential)):
            found = []
            error = f"what the load saw proves nothing: {again.message}"
        is_dead = any(not e.check.startswith(LOAD) for e in found)
        if beside_drills and not is_dead and any(e.outcome is not Outcome.PASS for e in found):
            context.write([_set_aside(e) for e in found])
            return []
        context.write(found)
    if shut := known_shut(context.evidence):
        error = shut[0].message
        context.block(expected, shut[0])
    context.account_for(expected, error or "the load stage did not come to this")
    return [context.ended("load", found, len(expected), (now() - started).total_seconds(), error)]


def clean_up(context: Context, remove: Callable[[Target, Path], str] | None) -> list[StageReport]:
    """Remove the companies of the load, however the stages ended; reports only a refusal."""
    if remove is None:
        return []
    started = now()
    error = redact_text(remove(context.target, context.out), hidden(context.target))
    seconds = (now() - started).total_seconds()
    if error:
        context.progress(Progress("clean up", seconds=seconds, done=True, error=error))
    return [StageReport("clean up", seconds, 1 if error else 0, error)]


def _unaccepted(context: Context, credential: str) -> Evidence | None:
    """The preflight's evidence that the target was not seen to accept a given credential."""
    lines = [e for e in context.lines() if e.check == credential and not e.blocked_by]
    return next((e for e in lines if e.outcome is not Outcome.PASS), None)


def _set_aside(one: Evidence) -> Evidence:
    """The evidence of a load that is made again. A failure stands if it was counted."""
    if one.outcome is not Outcome.FAIL:
        return dataclasses.replace(one, round="before")
    if one.check.startswith(COUNTED):
        return one
    said = f"beside drills, so it was measured again, alone: {one.message}"
    return dataclasses.replace(one, outcome=Outcome.UNKNOWN, message=said, round="before")


def _stamped(one: Evidence, target: Target, started: dt.datetime) -> Evidence:
    """Evidence of a stage that has just run, with the release and the time."""
    at, by = one.started_at or stamp(started), one.blocked_by
    if one.outcome is Outcome.UNKNOWN and not target.database_url and "DATABASE_URL" in one.message:
        by = by or VARIABLES
    return dataclasses.replace(one, release=one.release or target.release, started_at=at, blocked_by=by)
