"""An act may come late, by a slow network or commit; what is over by then proves nothing, and drills allow for it."""

from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from gates.deployment.sql.database import script, session
from gates.evidence import Outcome
from gates.proof.workbench.relay import RelayOptions, relay
from tests.drills.examination import examine

CHECK = "drill/pause/stops-a-running-replay"
TRIP_S = 0.2
SLOW_COMMIT = """
create function public.zz_waits() returns trigger language plpgsql set search_path = '' as $$ begin
  perform pg_catalog.pg_sleep(0.9); return null; end $$;
create constraint trigger zz_waits after insert or update on public.agent_controls deferrable initially deferred
  for each row execute function public.zz_waits()
"""


@pytest.mark.parametrize(
    ("options", "outcomes"),
    [((), {Outcome.PASS, Outcome.UNKNOWN}), ((f"--trip-ms={1000 * TRIP_S:.0f}",), {Outcome.PASS})],
    ids=["the way is not known", "the way is known"],
)
def test_a_pause_that_comes_late_is_no_failure(
    variables: dict[str, str], tmp_path: Path, options: tuple[str, ...], outcomes: set[Outcome]
) -> None:
    """A replay that ended before the pause arrived does not count as one that ignored it."""
    far = dict(variables)
    with ExitStack() as stack:
        for name in ("BASE_URL", "DATABASE_URL"):
            parts = urlsplit(variables[name])
            base = f"tcp://{parts.hostname}:{parts.port}"
            there = urlsplit(stack.enter_context(relay(base, RelayOptions(delay_s=TRIP_S))))
            login, at, _ = parts.netloc.rpartition("@")
            far[name] = urlunsplit(parts._replace(netloc=f"{login}{at}{there.netloc}"))
        found = examine(far, [CHECK], tmp_path, *options)
    assert found[CHECK].outcome in outcomes, found[CHECK].message


def test_a_pause_counts_from_its_commit(variables: dict[str, str], tmp_path: Path) -> None:
    """What is delivered while the commit of the pause waits, as for a standby, was delivered before it."""
    with session(variables["DATABASE_URL"]) as connection:
        script(connection, SLOW_COMMIT)
        try:
            found = examine(variables, [CHECK], tmp_path, "--trip-ms=200")
        finally:
            script(connection, "drop function public.zz_waits() cascade")
    assert found[CHECK].outcome in {Outcome.PASS, Outcome.UNKNOWN}, found[CHECK].message
