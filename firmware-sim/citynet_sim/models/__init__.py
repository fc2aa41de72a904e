"""Physics: pure functions of a site's constants and of time, arrays in, arrays out; one module a domain."""
