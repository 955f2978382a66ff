"""Many networks trained as one: every tensor has a leading member axis."""
