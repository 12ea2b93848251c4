"""SQL access: connections with limits, statements from files, cells of a foreign database."""
