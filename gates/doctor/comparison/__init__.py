"""A deployment compared with the contract: each object and endpoint present, renamed, different or absent. Pure."""
