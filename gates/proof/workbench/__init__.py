"""What suites are built from: a deployment to prove on, programs with a limit, servers, relays, a pooler."""
