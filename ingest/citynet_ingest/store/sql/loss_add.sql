INSERT INTO loss (gateway, stream, epoch, first, last, reason)
VALUES (%(gateway)s, %(stream)s, %(epoch)s, %(first)s, %(last)s, %(reason)s)
