"""For Locust's own command line: the load of `gate load`, as a Locust user starts it.

    locust -f loadtests/locustfile.py --headless --host URL    # [-u USERS] [-t TIME] [--thresholds FILE]
    locust -f loadtests/locustfile.py                           # with the web UI: its tab Verdict
    locust -f loadtests/locustfile.py --master --expect-workers 2, and two with --worker --master-host HOST

A worker serves any such master, and `gate load --expect-workers N`. It gets the plan from its master, its secrets from
its own environment (TRANSBOT_HMAC_SECRET, ADMIN_JWT).
"""

import os
from typing import Any

from locust import events
from locust.runners import WorkerRunner

from gates.deployment.dialect.current import learn
from loadtests.engine.locust_engine import attach
from loadtests.engine.users import LoadUser
from loadtests.plain import PlainRun, VerdictShape
from loadtests.plan import credentials_from

__all__ = ["LoadUser", "VerdictShape"]


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: Any, **_: Any) -> None:
    """What Locust has no option for."""
    parser.add_argument("--thresholds", default="", metavar="FILE", help="k6 options: JavaScript, JSON or YAML")
    parser.add_argument(
        "--results", default="gate-load", metavar="DIR", help="for result.json and the samples", include_in_web_ui=False
    )


@events.init.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Any, **_: Any) -> None:
    """Serve as a worker, or lead a run."""
    learn(os.environ)
    if isinstance(environment.runner, WorkerRunner):
        attach(environment, credentials_from(os.environ), lambda _worker, _report: None)
    else:
        environment.plain_run = PlainRun(environment)
