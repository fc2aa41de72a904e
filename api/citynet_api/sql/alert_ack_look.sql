SELECT id, acked_at, acked_by FROM alert WHERE id = %(id)s FOR UPDATE
