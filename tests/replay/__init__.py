"""Rules on simulated time: golden timelines."""
