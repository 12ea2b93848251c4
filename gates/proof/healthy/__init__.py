"""Deployments that differ from the usual one and are right: `variants` lists them, the other modules create them."""
