"""Access to the deployment under test: HTTP, SQL, control; their limits, credentials and leftovers."""
