"""The thresholds and requests of a plan. Does not import Locust, which patches the process."""

import dataclasses
import os

from loadtests.engine.metrics import TYPES
from loadtests.engine.workload import MIX
from loadtests.judgement import interleaved
from loadtests.plan import LoadPlan, UrlRequest
from loadtests.profiles import CHECKLIST_THRESHOLDS, URL_THRESHOLDS
from loadtests.thresholds.file import ThresholdsFile, parse_thresholds
from loadtests.thresholds.language import ThresholdSet
from loadtests.thresholds.requests import parse_requests


def requests_of(plan: LoadPlan) -> tuple[UrlRequest, ...]:
    """The requests that a plan of a URL names. Raise ThresholdsFileError."""
    return parse_requests(plan.requests_text, plan.requests_name, os.environ)


def thresholds_of(plan: LoadPlan) -> ThresholdsFile:
    """The thresholds of a plan, the checklist's where it brings none. Raise ThresholdsFileError."""
    text = plan.thresholds_text or (URL_THRESHOLDS if plan.url_only else CHECKLIST_THRESHOLDS)
    name = plan.thresholds_name if plan.thresholds_text else "checklist.js"
    operations = tuple(one.name for one in requests_of(plan)) if plan.url_only else tuple(dict.fromkeys(MIX))
    file = parse_thresholds(text, name, TYPES, operations)
    if not plan.baseline_url:
        return file
    known = dict(file.thresholds.by_metric)
    for key, threshold in interleaved.thresholds(plan.failed_percent):
        known.setdefault(key, (threshold,))
    return dataclasses.replace(file, thresholds=ThresholdSet(known))
