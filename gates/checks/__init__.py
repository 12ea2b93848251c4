"""What a check is made with: its observation, and the pytest plugin that records it."""
