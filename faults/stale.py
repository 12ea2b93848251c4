"""Faults of a worker that remembers: what an operator switches off goes on for a while."""

from __future__ import annotations

from faults.altered import altered_worker
from faults.catalogue import worker
from faults.outbox import BOTH, is_done, put
from faults.probe import Probe
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings

_ON = "public.is_feature_enabled('outbox.enabled', t.company_id) AND NOT public.is_company_paused(t.company_id)"
_REMEMBERS = """
CREATE TABLE planted_memory (company_id uuid PRIMARY KEY, is_on boolean, seen_at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION planted_is_on(company uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public AS $$
DECLARE found_on boolean;
BEGIN
  SELECT m.is_on INTO found_on FROM planted_memory m
  WHERE m.company_id = $1 AND m.seen_at > clock_timestamp() - interval '5 s';
  IF FOUND THEN
    RETURN found_on;
  END IF;
  found_on := is_feature_enabled('outbox.enabled', $1) AND NOT is_company_paused($1);
  INSERT INTO planted_memory VALUES ($1, found_on)
  ON CONFLICT (company_id) DO UPDATE SET is_on = found_on, seen_at = clock_timestamp();
  RETURN found_on;
END $$;
GRANT EXECUTE ON FUNCTION planted_is_on(uuid) TO replay_worker;
"""


@worker(
    "The worker remembers for five seconds who is on: a pause, or a rollback, comes late.",
    lambda p: _goes_on(p),
    ("drill/pause/events-go-to-the-outbox", "drill/held/switched-off-is-not-delivered"),
    names=("effect", "delivered"),
    sql=_REMEMBERS,
    undo_sql="DROP FUNCTION planted_is_on(uuid); DROP TABLE planted_memory;",
)
def who_is_on_is_remembered(settings: WorkerSettings) -> WorkerParts:
    return altered_worker(settings, *((name, _ON, "public.planted_is_on(t.company_id)") for name in BOTH))


def _goes_on(probe: Probe) -> bool:
    with probe.tenant() as company:
        is_done(probe, put(probe, company))
        probe.rows("INSERT INTO agent_controls (company_id, agents_paused) VALUES (%s, true)", company)
        return is_done(probe, put(probe, company))
