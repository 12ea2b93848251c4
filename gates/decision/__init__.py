"""How a verdict follows from evidence and policy. Pure and standard library only, except for reading gate.yaml."""
