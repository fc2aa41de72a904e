-- Looked at as it was; nothing, if more came since.
DELETE FROM late_span WHERE series_id = %(series)s AND revision = %(revision)s
