"""The load stage: Locust users, load shapes, thresholds that read like k6's, and an exact latency recorder."""
