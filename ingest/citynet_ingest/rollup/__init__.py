"""Rollups: mergeable partials of every series by minute and by hour, kept up from the readings of each commit."""
