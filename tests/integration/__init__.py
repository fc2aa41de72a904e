"""Real broker, real database, one or two rooms."""
