-- The values of keys.
--
-- KEYS: the values.
-- Returns: the moment, in ms; and each value, or nothing.
local time = redis.call('TIME')
return {time[1] * 1000 + math.floor(time[2] / 1000), unpack(redis.call('MGET', unpack(KEYS)))}
