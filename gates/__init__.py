"""The gate runner: collects evidence about a deployment, decides, acts on the flag, reports."""
