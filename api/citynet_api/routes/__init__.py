"""The paths of the api: each handler parses, calls and shapes."""
