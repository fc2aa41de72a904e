INSERT INTO direct_receipt (worker, number, hashes) VALUES (%(worker)s, %(number)s, %(hashes)s)
