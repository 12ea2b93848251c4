"""Mutants: faults that nobody thought of, made of the reference's own statements, comparisons and clauses by a few
operators, each a change of one place. The gate must not promote one, or the catalogue of equivalents says why it may.
"""
