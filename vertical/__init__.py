"""Learning over columns that are split between silos."""
