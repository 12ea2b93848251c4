"""Matches real tables, columns, roles and states with the contract's: scores with reasons. Pure."""
