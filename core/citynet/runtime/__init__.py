"""How a process lives: settings, logs, metrics, supervision, and the embedded servers of the demo and the tests."""
