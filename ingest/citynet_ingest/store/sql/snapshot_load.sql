SELECT state FROM engine_snapshot WHERE worker = %(worker)s
