"""Over a slow network an act may come too late; what is over by then proves nothing, so drills allow for it."""

from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from gates.evidence import Outcome
from gates.proof.workbench.relay import RelayOptions, relay
from tests.drills.examination import examine

CHECK = "drill/pause/stops-a-running-replay"
TRIP_S = 0.2


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
