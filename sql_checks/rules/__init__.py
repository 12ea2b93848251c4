"""Alert rules: read, asked in one snapshot, judged; those of queues are written over the notions of a preset."""
