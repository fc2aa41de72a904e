SELECT count(*) FROM late_span
