INSERT INTO rule_arming (rule_id, version, digest, mode, author, reason, override_by, override_reason, refusals)
VALUES (%(rule)s, %(version)s, %(digest)s, %(mode)s, %(author)s, %(reason)s, %(override_by)s, %(override_reason)s, %(refusals)s)
