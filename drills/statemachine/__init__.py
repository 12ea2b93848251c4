"""Random programs against the real service, judged by a small model of the contract."""
