"""The dialect in use: translates SQL and HTTP of the contract into the target's names."""
