"""Faults of the policies: who sees, or writes, whose rows."""

from typing import Any

from faults.catalogue import statement
from faults.schema import RLS, SPOT


def _policy(
    fault_id: str, breaks: str, on: str, rule: str, checks: tuple[str, ...], *, grants: str = "", **more: Any
) -> None:
    """Declare a policy on a table as a fault, with what it `grants` to authenticated."""
    statement(
        f"schema/{fault_id}",
        breaks,
        (f"GRANT {grants} ON {on} TO authenticated; " if grants else "") + f"CREATE POLICY witness ON {on} {rule}",
        f"DROP POLICY witness ON {on}" + (f"; REVOKE {grants} ON {on} FROM authenticated" if grants else ""),
        lambda probe: bool(probe.value("SELECT count(*) > 0 FROM pg_policies WHERE policyname = 'witness'")),
        checks,
        **{"names": (on,), **more},
    )


_policy(
    "policy-always-true",
    "A policy lets every tenant see all events.",
    "events",
    "FOR SELECT TO authenticated USING (true)",
    (f"{SPOT}/policies-not-always-true", f"{RLS}/other-tenants-hidden", "sql/manifest/policies"),
)
_policy(
    "policy-always-true-disguised",
    "A policy is always true without saying so (`company_id IS NOT NULL`).",
    "replay_runs",
    "FOR SELECT TO authenticated USING (company_id IS NOT NULL)",
    (f"{RLS}/other-tenants-hidden", f"{RLS}/stranger-sees-nothing", f"{SPOT}/policies-not-always-true"),
)
_policy(
    "policy-opens-one-state",
    "A policy lets every tenant see all discarded letters.",
    "dead_letter_queue",
    "FOR SELECT TO authenticated USING (status = 'discarded')",
    (f"{RLS}/other-tenants-hidden", "sql/manifest/policies"),
)
_policy(
    "policy-hides-a-tenant-from-itself",
    "A restrictive policy hides all events from everybody.",
    "events",
    "AS RESTRICTIVE FOR SELECT TO authenticated USING (false)",
    (f"{RLS}/own-rows-visible",),
)
_policy(
    "policy-for-garbage",
    "Whoever sends claims that are no object sees all events.",
    "events",
    "FOR SELECT TO authenticated USING (current_setting('request.jwt.claims', true) NOT LIKE '{%')",
    (f"{RLS}/garbage-claims-see-nothing",),
)
_policy(
    "policy-for-no-claims",
    "Who comes without claims sees all companies.",
    "companies",
    "FOR SELECT TO authenticated USING (coalesce(auth.jwt() ->> 'company_id', '') = '')",
    (f"{RLS}/no-claims-see-nothing", f"{RLS}/empty-claims-see-nothing", f"{RLS}/claims-without-company-see-nothing"),
)
_policy(
    "policy-falls-back-to-the-subject",
    "Without a company in its claims a session acts for the company whose id is the subject of its token.",
    "companies",
    "FOR SELECT TO authenticated USING (id::text = coalesce(auth.jwt() ->> 'company_id', auth.jwt() ->> 'sub'))",
    (f"{RLS}/claims-without-company-see-nothing",),
)
_policy(
    "policies-for-every-write",
    "Policies let every tenant write the events of all.",
    "events",
    "TO authenticated USING (true) WITH CHECK (true)",
    tuple(
        f"{RLS}/{what}"
        for what in (
            *("insert-for-another-refused", "move-to-another-refused"),
            *("update-of-another-touches-nothing", "delete-of-another-touches-nothing"),
        )
    ),
    grants="INSERT, UPDATE, DELETE",
)
_policy(
    "tenants-write-flags",
    "Tenants may switch their own flags on.",
    "feature_flags",
    "FOR ALL TO authenticated USING (company_id::text = auth.jwt() ->> 'company_id')",
    ("drill/flags/tenants-cannot-write", f"{SPOT}/tenants-only-read", "sql/manifest/grants"),
    grants="INSERT, UPDATE",
)
_policy(
    "a-role-takes-rows-over",
    "The gate's login may make anybody's event an event of a drill tenant.",
    "events",
    "FOR UPDATE TO replay_gate USING (true) WITH CHECK (public.is_drill_company(company_id))",
    (f"{SPOT}/policies-take-over-no-row", "sql/manifest/policies"),
)
statement(
    "schema/anon-sees-companies",
    "`anon` may read companies.",
    "GRANT SELECT ON companies TO anon; CREATE POLICY witness_anon ON companies FOR SELECT TO anon USING (true)",
    "DROP POLICY witness_anon ON companies; REVOKE SELECT ON companies FROM anon",
    lambda probe: bool(probe.value("SELECT has_table_privilege('anon', 'public.companies', 'SELECT')")),
    (f"{RLS}/anon-sees-nothing", f"{SPOT}/policies-not-always-true", f"{SPOT}/no-public-grants"),
    names=("companies", "anon"),
)
