"""What a drill is written with: the doors to the target, tenants, rows, requests, waits and tables of checks."""
