"""The reference implementation of the contract: HTTP service, outbox worker, migrations."""
