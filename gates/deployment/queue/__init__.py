"""Access to a queue: its tables, what waits there, and jobs of the gate's own."""
