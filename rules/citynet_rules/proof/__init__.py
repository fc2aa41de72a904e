"""Proving rules before they are armed: replay of history, difference to the alerts that were, score against a truth."""
