SELECT hashes FROM direct_receipt WHERE worker = %(worker)s ORDER BY number
