"""Backlight: an experiment bench for back-propagation."""

__version__ = "0.1.0"
