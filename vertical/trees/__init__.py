"""Gradient-boosted trees over columns that several owners hold about the same people."""
