"""Hostile input for every parser of what comes from a network, a partner or a file: see docs/fuzzing.md."""
