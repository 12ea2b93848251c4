"""What a drill leaves behind: nothing."""
