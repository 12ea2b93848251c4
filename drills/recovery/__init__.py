"""Recovery: processes, sessions and clocks break in the middle of the work; nothing is lost or doubled."""
