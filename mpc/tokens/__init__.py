"""Matching by an oblivious function on an elliptic curve, with tokens of the larger set that can be kept."""
