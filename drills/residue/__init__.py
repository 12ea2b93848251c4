"""Residue: the drills leave no rows and no switches behind."""
