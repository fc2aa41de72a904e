SELECT value FROM broker_counter WHERE name = 'messages-dropped'
