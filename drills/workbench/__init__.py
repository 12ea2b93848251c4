"""The tools that drills are written with; docs/drills.md has the table of fixtures.

`scene` (requests and waits) builds on `tenant_data` (tenants and their rows), and that on `database`. `rate_limit` adds
the rate limit. `bench` and `credentials` need no tenant. `checks` is for declarations, `turns` orders the checks.
"""
