SELECT s.id, d.name, s.metric, d.source FROM series s JOIN device d ON d.id = s.device_id
