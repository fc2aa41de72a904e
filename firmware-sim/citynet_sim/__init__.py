"""The simulated city: seeded, misbehaving on purpose, and writing down the truth."""
