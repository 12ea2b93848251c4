"""What a suite is written with: a deployment to prove on, programs with a limit, servers, relays, a pooler."""
