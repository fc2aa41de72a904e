SELECT compress_chunk(%(chunk)s::regclass, if_not_compressed => true, recompress => true)
