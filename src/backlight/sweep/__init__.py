"""Sweeps: trials composed, trained together, recorded and compared."""
