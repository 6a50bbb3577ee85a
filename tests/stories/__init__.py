"""Small scenes whose whole story is worked out by hand from the rules; both implementations must tell it."""
