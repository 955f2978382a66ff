"""Backlight: an experiment bench for back-propagation."""

import os

# Else the last bits of MKL's products depend on where matrices lie in memory, and a network's on its neighbours in a
# population. It costs nothing measurable: https://www.intel.com/content/www/us/en/docs/onemkl, "Conditional Numerical
# Reproducibility". MKL reads it at its first product.
os.environ.setdefault("MKL_CBWR", "AUTO")

__version__ = "0.1.0"
