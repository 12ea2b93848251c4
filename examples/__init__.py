"""Foreign deployments: built without the project's contract in mind, and gated by a mapping. See docs/adopt.md."""
