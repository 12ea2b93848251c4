"""The audit trail: what was done and what was refused, by whom, in an append-only chain."""
