"""Backlight: an experiment bench for back-propagation."""

import os

# Else the last bits of MKL's products depend on where matrices lie in memory, and a network's on its neighbours in a
# population (oneMKL Developer Guide, "Conditional Numerical Reproducibility"). It takes no longer. MKL reads it at its
# first product.
os.environ.setdefault("MKL_CBWR", "AUTO")

__version__ = "0.1.0"
