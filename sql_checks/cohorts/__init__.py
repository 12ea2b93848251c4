"""The tenants that have a flag on, compared with those that have it off."""
