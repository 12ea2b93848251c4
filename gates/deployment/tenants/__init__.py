"""The companies of a run, what they own, and the live rows that are lent to a drill and given back."""
