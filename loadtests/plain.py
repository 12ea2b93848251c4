"""A run under Locust's own command line: headless, with its web UI, or as master of workers.

Workload, thresholds and verdict are those of `gate load`; the options are Locust's. The exit code is that of the
verdict: 0 all passed, 20 a threshold failed, 10 anything else, also where nothing was measured.
"""

import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
from flask import Response, request
from locust import LoadTestShape
from locust.runners import MasterRunner

from gates.deployment.tenants.leftovers import take_lease, term_of
from loadtests.engine.conductor import Conductor
from loadtests.engine.locust_engine import Engine, attach
from loadtests.engine.worker import REPORT
from loadtests.plan import Credentials, LoadPlan, credentials_from
from loadtests.run import run
from loadtests.thresholds.language import ThresholdError

PASSED, HELD, FAILED = 0, 10, 20
POLL_S, STOP_S = 0.05, 60.0
LENGTH_S = 10.0
TAB = "verdict"


class PlainRun:
    """The run of one Locust process, or of a master; the web UI may start one after the other."""

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self.result: Mapping[str, Any] = {}
        self.engine: Engine | None = None
        self.greenlet: gevent.Greenlet | None = None
        environment.process_exit_code = HELD
        attach(environment, credentials_from(os.environ), self._on_report)
        if isinstance(environment.runner, MasterRunner):
            environment.runner.register_message(REPORT, lambda msg, **_: self._on_report(str(msg.node_id), msg.data))
        environment.events.test_stopping.add_listener(lambda **_: self.stop())
        environment.events.quitting.add_listener(lambda **_: self.stop())
        if environment.web_ui is not None:
            self._show_in(environment.web_ui)
        if environment.parsed_options.headless or environment.parsed_options.autostart:
            # Locust itself listens to this signal only when such a run is over
            gevent.signal_handler(signal.SIGTERM, environment.runner.quit)

    def tick(self) -> tuple[int, float] | None:
        """How many users Locust has to start: one for each load process; None when the run is over."""
        if self.greenlet is None:
            self.engine, self.result, self.environment.process_exit_code = None, {}, HELD
            self.greenlet = gevent.spawn(self._perform)
        while not self.greenlet.dead and not (self.engine and self.engine.performing):
            gevent.sleep(POLL_S)
        if self.greenlet.dead or self.engine is None:
            self.greenlet = None
            return None
        processes = max(1, self.engine.expected)
        return processes, 100.0 * processes

    def stop(self) -> None:
        """End a run that is not over: it is no verdict, and its companies are removed."""
        if self.greenlet is None or self.greenlet.dead:
            return
        if self.engine is not None and self.engine.performing:
            self.engine.conductor.lose("the run was stopped by hand")
            self.greenlet.join(timeout=STOP_S)
        self.greenlet.kill()

    def _on_report(self, worker: str, report: Mapping[str, Any]) -> None:
        if self.engine is not None:
            self.engine.on_report(worker, report)

    def _perform(self) -> None:
        lease, url = None, os.environ.get("DATABASE_URL", "")
        options = self.environment.parsed_options
        try:
            plan = plan_of(options, self.environment.runner, os.environ)
            if url:
                lease, mark = take_lease(url, plan.run)
                plan = replace(plan, lease=term_of(mark, url))
            self.result = run(plan, Path(options.results), os.environ, self._engine)
        except (ThresholdError, ValueError, OSError) as error:
            sys.stderr.write(f"no verdict: {error}\n")
            return
        finally:
            if lease is not None:
                lease.release()
        self.environment.process_exit_code = code_of(self.result)
        sys.stdout.write("\n".join(lines_of(self.result)) + "\n")
        sys.stdout.flush()

    def _engine(
        self, plan: LoadPlan, conductor: Conductor, credentials: Credentials, tick: Callable[[], None]
    ) -> Engine:
        self.engine = Engine(plan, conductor, credentials, tick, self.environment)
        return self.engine

    def _show_in(self, web_ui: Any) -> None:
        """A tab of Locust's page with the thresholds of the last run; it asks for the rows with the statistics."""
        columns = [{"key": key, "title": key.capitalize()} for key in ("verdict", "check", "message")]
        web_ui.template_args["extended_tabs"] = [{"title": "Verdict", "key": TAB}]
        web_ui.template_args["extended_tables"] = [{"key": TAB, "structure": columns}]

        @web_ui.app.after_request  # type: ignore[untyped-decorator]
        def add_rows(response: Response) -> Response:
            if request.path.endswith("/stats/requests") and isinstance(response.json, dict):
                extended = [{"key": TAB, "data": self.result.get("judgements", [])}]
                response.set_data(json.dumps({**response.json, "extended_stats": extended}))
            return response


class VerdictShape(LoadTestShape):  # type: ignore[misc]
    """Lets Locust start one user in each load process, and end when the run does."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """What the run of this process wants."""
        found: tuple[int, float] | None = self.runner.environment.plain_run.tick()
        return found


def plan_of(options: Any, runner: Any, environ: Mapping[str, str]) -> LoadPlan:
    """The plan by Locust's options and the contract's variables. Raise ValueError where no run can be made of them."""
    url = options.host or environ.get("BASE_URL", "")
    if not url:
        raise ValueError("there is nothing to load; give --host or set BASE_URL")
    workers = 0
    if isinstance(runner, MasterRunner):
        places = [runner.worker_indexes[client.id] for client in runner.clients.ready]
        workers = len(places)
        if not workers or len({place % workers for place in places}) < workers:
            raise ValueError("no worker is connected, or one went and came again; restart master and workers")
    file = Path(options.thresholds) if options.thresholds else None
    return LoadPlan(
        base_url=url,
        thresholds_name=str(file or "checklist.js"),
        thresholds_text=file.read_text(encoding="utf-8") if file else "",
        run=secrets.token_hex(4),
        vus=options.num_users if (options.num_users or 0) > 1 else 0,
        duration_s=float(options.run_time or LENGTH_S),
        run_on=not options.run_time,
        expect_workers=workers,
        baseline_url=environ.get("BASELINE_URL", ""),
        release=environ.get("RELEASE", "").strip(),
        test_company_id=environ.get("TEST_COMPANY_ID", ""),
        test_outbox=is_on(environ, "TEST_OUTBOX"),
        test_dlq=is_on(environ, "TEST_DLQ"),
        test_agents=is_on(environ, "TEST_AGENTS"),
    )


def is_on(environ: Mapping[str, str], name: str) -> bool:
    """Whether a switch of the contract is not off."""
    return environ.get(name, "").strip().lower() != "false"


def code_of(result: Mapping[str, Any]) -> int:
    """The exit code of a result; only thresholds that all passed are 0."""
    verdicts = {one["verdict"] for one in result.get("judgements", ())}
    if "fail" in verdicts:
        return FAILED
    return PASSED if verdicts == {"pass"} else HELD


def lines_of(result: Mapping[str, Any]) -> list[str]:
    """The verdict for people: every threshold, why the run was not valid, and the whole in one word."""
    word = {PASSED: "passed", HELD: "unknown, which holds", FAILED: "failed"}[code_of(result)]
    rows = [f"{one['verdict'].upper():<8}{one['check']}: {one['message']}" for one in result["judgements"]]
    return [*rows, *result["invalid_reasons"], f"verdict: {word} ({result['ended']})"]
