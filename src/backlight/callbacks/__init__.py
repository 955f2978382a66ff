"""Callbacks: they show and keep what training measures, and change nothing in it."""
