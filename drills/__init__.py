"""Black-box drills of a deployment, one folder a promise; a check is declared with `@check` or `@cases`.

| folder | its checks |
|---|---|
| short_drill | drill/proof: the checklist, for a deployment that gives no SQL |
| authentication | drill/authentication: signed requests |
| tokens | drill/tokens: bearer tokens and the rights of their holders |
| http | drill/http-surface: methods, bodies, refusals |
| rate_limit | drill/rate-limit |
| idempotency | drill/idempotency |
| replay | drill/safety-rails, drill/dry-run, drill/lifecycle: what a replay may take, its preview, its end |
| budgets | drill/budgets |
| dead_letters | drill/dlq |
| outbox | drill/outbox: delivery, order, claims, failures |
| switches | drill/flags, drill/pause, drill/held |
| audit | drill/audit |
| ledger | drill/ledger: every exchange of all drills, against the database |
| identity | drill/identity: release and database login |
| observability | drill/observability: metrics |
| recovery | drill/recovery: processes killed, frozen, cut off |
| statemachine | drill/statemachine: random programs against a model of the contract |
| residue | drill/residue: what the drills leave behind |
| workbench | no checks: what a drill is written with |
"""
