"""The fault matrix: each fault of the catalogue is put in, and the gate must see it for the right reason."""
