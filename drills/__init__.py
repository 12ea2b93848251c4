"""Black-box drills of a deployment, one file a promise."""
