"""The replaceable parts of a worker; a fault replaces one of them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from replay_service.database import load_queries
from replay_service.worker.agents import Agent, ScriptedAgent, SqlAgent
from replay_service.worker.rail import PLACES, Counts, must_stop
from replay_service.worker.settings import WorkerSettings

WORKER_QUERIES = load_queries(Path(__file__).parent / "sql")


@dataclass(frozen=True)
class WorkerParts:
    """The parts of a worker. `queries`: name of a file in sql/ -> its text."""

    settings: WorkerSettings
    queries: Mapping[str, bytes]
    agent: Agent
    has_fast_path: bool  # whether the sweep's statement delivers ordinary events; otherwise every event is leased
    places: int = PLACES  # items of a run in flight at most
    must_stop: Callable[[Counts], bool] = must_stop


def build_worker_parts(settings: WorkerSettings) -> WorkerParts:
    """The worker as the contract wants it."""
    if settings.agent == "http":
        from replay_service.worker.http_agent import HttpAgent  # noqa: PLC0415  -- see there

        agent: Agent = HttpAgent(settings.agent_url, settings.agent_secret, settings.http_timeout_s, time.time)
    else:
        agent = SqlAgent()
    return WorkerParts(settings, WORKER_QUERIES, ScriptedAgent(agent), has_fast_path=settings.agent == "sql")
