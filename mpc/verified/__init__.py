"""Correlations from a dealer whose work is checked before anything is released."""
