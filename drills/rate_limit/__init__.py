"""The rate limit: three calls in five minutes for each tenant and address."""
