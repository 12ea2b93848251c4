"""The options of the load stage: those of `gate load`, and those of a whole run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from gates.decision.policy_file import Settings
from gates.inputs import values
from gates.inputs.values import option

QUICK_S, QUICK_MOST_S = 10.0, 30.0
MOST_EXACT = 20_000_000
MOST_EXACT_HELP = (
    "values of a metric kept as measured; beyond, a histogram of 3 significant digits (default 20 million)"
)


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The options of `gate load`, by name. 0 is the default that the option's help names. slower_percent,
    failed_percent: the margins of the policy against BASELINE_URL.
    """

    profile: str = "quick"
    thresholds: Path | None = None
    url: str | None = None
    requests: Path | None = None
    method: str = "GET"
    header: tuple[str, ...] = ()
    body: str = ""
    rate: float = 50.0
    vus: int = 0
    duration: float = 0.0
    most: float = 0.0
    workers: int = 0
    expect_workers: int = 0
    master_host: str = "*"
    master_port: int = 0
    compat: str | None = None
    no_run_on: bool = False
    no_early_abort: bool = False
    most_exact: int = 0
    keep_tenants: bool = False
    spare_test_company: bool = False
    baseline: Path | None = None
    whole_run: bool = False
    slower_percent: float = Settings().load_slower_percent
    failed_percent: float = Settings().load_failed_percent

    @classmethod
    def given(cls, options: argparse.Namespace) -> LoadOptions:
        """Those of the command line."""
        return cls(**{f.name: getattr(options, f.name) for f in fields(cls) if hasattr(options, f.name)})

    @property
    def plans_its_time(self) -> bool:
        """Whether the options determine the duration, rather than the policy's `stages.load.timeout_s`."""
        return bool(self.duration or self.most or self.thresholds or self.profile != "quick")


OF_A_RUN = LoadOptions(keep_tenants=True, spare_test_company=True, whole_run=True)
"""The quick profile. Its companies stay for the second look at the data; TEST_COMPANY_ID is for the short drill."""

COUNT, PROCESSES = option(values.whole(0)), option(values.whole(0, 1000))
SECONDS, PORT, PER_SECOND = map(
    option, (values.decimal(0, 604_800), values.whole(0, 65_535), values.decimal(0.001, 1e6))
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `gate load`; defaults are those of `LoadOptions`."""
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    add("--profile", choices=("quick", "default"), help="quick: 10 s; default: the checklist's 5-10 users")
    add("--thresholds", type=Path, metavar="FILE", help="k6 options: JavaScript, JSON or YAML")
    _add_arguments_of_url(add)
    add("--vus", type=COUNT, metavar="N", help="closed model: N users, each waiting for its answer")
    add("--duration", type=SECONDS, metavar="S", help=f"seconds of load (default {QUICK_S:g})")
    add("--most", type=SECONDS, metavar="S", help="seconds after which an undecided run ends")
    add("--workers", type=PROCESSES, metavar="N", help="spread the load over N processes of this machine")
    add("--expect-workers", type=PROCESSES, metavar="N", help="wait for N workers of other machines (30 s)")
    add("--master-host", metavar="ADDRESS", help="where remote workers connect (default: all addresses)")
    add("--master-port", type=PORT, metavar="PORT", help="its port (default 5557 with --expect-workers)")
    add("--compat", choices=("k6",), help="say beside each verdict what k6 would have said; abort where k6 would")
    add("--no-run-on", action="store_true", help="stop at the planned end even where the samples do not decide")
    add("--no-early-abort", action="store_true", help="run to the end even where a threshold can no longer pass")
    add("--most-exact", type=COUNT, metavar="N", help=MOST_EXACT_HELP)
    add("--keep-tenants", action="store_true", help="leave the companies of the run; `clean_up` removes them")
    add("--spare-test-company", action="store_true", help="make no replay call for TEST_COMPANY_ID")
    add("--baseline", type=Path, metavar="DIR", help="the load folder of an earlier run to compare latencies with")


def _add_arguments_of_url(add: Callable[..., object]) -> None:
    """Options for a URL, and what is sent to it."""
    turns = "with --url: a list of {name, method, path, headers, body, expect}, made by turns"
    variables = "with --url; ${VARIABLE} in it is read from the environment; may be repeated"
    add("--url", type=option(values.webhook), help="load only this URL, whatever it is")
    add("--requests", type=Path, metavar="FILE", help=turns)
    add("--method", metavar="WORD", help="with --url: GET, POST, ...")
    add("--header", action="append", metavar="'NAME: VALUE'", help=variables)
    add("--body", metavar="TEXT", help="with --url: the body; ${VARIABLE} as in --header")
    add("--rate", type=PER_SECOND, metavar="N", help="arrivals a second with --url (open model; default 50)")
