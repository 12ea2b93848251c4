"""What a tenant may do, tried and rolled back: many statements in one round trip, each with its result."""
