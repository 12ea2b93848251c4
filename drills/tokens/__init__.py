"""Bearer tokens: which are accepted, and what their holders may do."""
