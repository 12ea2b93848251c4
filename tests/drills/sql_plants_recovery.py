"""Planted defects of what is left after faults, and after the drill itself."""

from __future__ import annotations

from dataclasses import replace

from tests.drills.sql_plants import meddler
from tests.drills.sql_plants_outbox import TWIN

FOR_EVER = """
if session_user = 'replay_worker' and new.claimed_until is not null and new.processed_at is null then
  new.claimed_until := 'infinity';
elsif session_user <> 'replay_worker' and old.claimed_until = 'infinity' then
  new.claimed_until := 'infinity';
end if;
"""

RECOVERY = [
    meddler(
        "what a dead worker claimed is stuck",
        "event_outbox",
        "update",
        FOR_EVER,
        (
            "drill/recovery/worker-killed-in-each-phase",
            "drill/recovery/worker-killed-in-a-replay",
        ),
    ),
    replace(
        TWIN,
        name="every effect twice, after a fault",
        red=(
            "drill/recovery/worker-frozen-past-its-claim",
            "drill/recovery/worker-sessions-ended",
            "drill/recovery/database-restarted",
        ),
    ),
]

RESIDUE = [
    meddler(
        "rows that come back",
        "companies",
        "delete",
        "insert into public.agent_tasks (company_id, status) values (old.id, 'completed');"
        " update public.feature_flags set description = clock_timestamp()::text where company_id is null;"
        " update public.agent_controls set pause_reason = clock_timestamp()::text where company_id is null;",
        ("drill/residue/no-rows-left", "drill/residue/flags-as-found", "drill/residue/pauses-as-found"),
        timing="after",
    ),
]
