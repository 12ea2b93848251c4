"""How a verdict follows from evidence and policy: pure, standard library only (but for the reading of gate.yaml)."""
