INSERT INTO gateway_note (gateway, stream, epoch, seq, kind, body)
VALUES (%(gateway)s, %(stream)s, %(epoch)s, %(seq)s, %(kind)s, %(body)s)
