"""Mutants: faults that nobody designed, made from the reference's statements, comparisons and clauses by a few
operators, each a change of one place.

The gate must not promote one, unless the catalogue of equivalents says why it may.
"""
