"""HTTP access: sends exact bytes, keeps what came back; with limits, without retries."""
