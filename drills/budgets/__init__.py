"""Budgets: how many items a tenant may replay in a day and in a month."""
