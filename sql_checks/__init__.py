"""SQL spot checks, alert rules, the catalogue fingerprint and row-level security, collected by pytest."""
