"""The SQL door: connections with limits, statements from files, cells of a foreign database."""
