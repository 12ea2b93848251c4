"""The HTTP door: the very bytes of a request out, what came back in; with limits, and without retries."""
