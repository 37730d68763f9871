"""The log: a Merkle tree over every event and every written row, and the check that needs no key."""
