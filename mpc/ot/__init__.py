"""Correlations for two parties without a dealer, from oblivious transfer."""
