"""What a drill is written with; the table of fixtures is in docs/drills.md.

`scene` (requests and waits) builds on `tenant_data` (tenants and their rows), and that on `database`. `rate_limit` adds
the rate limit. `bench` and `credentials` need no tenant. `checks` is for declarations, `turns` orders the checks.
"""
