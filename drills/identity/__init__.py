"""Which release runs, and with which database login."""
