"""The API and the console: show, acknowledge, explain."""
