"""Attacks on the gate: servers, databases and networks that lie or die, kills at any moment, crowds of gates.

`suite` runs them. Each trial ends within its stated time without promote, crash, leak or residue, and the gate did
what it says it did.
"""
