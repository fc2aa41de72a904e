"""The whole way, from sensor to screen."""
