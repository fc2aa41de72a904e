"""Ingest: the only writer of readings, owner of the database schema."""
