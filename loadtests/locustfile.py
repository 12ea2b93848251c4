"""For Locust's own command line: a remote worker of a run that `gate load --expect-workers N` leads.

    locust -f loadtests/locustfile.py --worker --master-host HOST [--master-port 5557]

The worker gets the plan from its master, its secrets from its own environment (TRANSBOT_HMAC_SECRET, ADMIN_JWT). Only
workers may run this file: thresholds, companies and the verdict belong to the master, which is the gate.
"""

from __future__ import annotations

import os
from typing import Any

from locust import events
from locust.runners import WorkerRunner

from loadtests.engine.credentials import credentials_from
from loadtests.engine.locust_engine import attach
from loadtests.engine.users import LoadUser

__all__ = ["LoadUser"]


@events.init.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Any, **_: Any) -> None:
    """Make this worker perform the plan that its master sends. Raise RuntimeError where this is no worker."""
    if not isinstance(environment.runner, WorkerRunner):
        text = "this file serves workers (--worker); lead a run with: gate load --expect-workers N"
        raise RuntimeError(text)  # noqa: TRY004  -- a wrong way to start, not a wrong type
    attach(environment, credentials_from(os.environ), lambda _worker, _report: None)
