"""Attacks on the gate: servers, databases and networks that lie or die, kills at any moment, many gates at once.

`suite` runs them. Each trial must end within its time limit without promote, crash, leak or residue, and the gate must
have done what it said.
"""
