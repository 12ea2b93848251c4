"""Which real table, column, role and state is which of the contract: scores with reasons. Pure."""
