"""One module at a time, no IO."""
