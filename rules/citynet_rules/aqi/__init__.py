"""Air quality index by HJ 633: tables as data (`hj633.toml`), index of one mean (`table`), of a station (`station`), and
the running means that the tables ask for (`means`). Pure."""
