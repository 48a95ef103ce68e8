"""The demonstration: a lender and a platform on one machine, real processes, real data."""
