"""Orders: what was bought, in which state it is, and how it came there."""
