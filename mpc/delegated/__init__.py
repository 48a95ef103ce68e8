"""Matching through a third silo that sees keyed tokens only."""
