"""Kills, cuts, poison and mutants: the guarantee under fire."""
