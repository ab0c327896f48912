-- Plain bookings of one token bucket: who asks first is booked first, up to a horizon ahead.
--
-- What is owed is a number of permits at a moment of the server's clock; the k-th beyond the burst is due k/rate
-- later, and keeps its moment. One that is handed back goes to whoever asks next. Times are whole microseconds.
--
-- KEYS: 1 the bucket, 2 moments that were handed back (sorted set).

local rate, burst, horizon, wanted, new_rate, first = struct.unpack('>ddddd', ARGV[1])
-- From there on: moments that are handed back.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local at, owed = now, 0
local state = redis.call('GET', KEYS[1])
if state then at, owed, rate, burst = struct.unpack('>dddd', state) end
owed = math.max(0, owed - (now - at) * rate / 1000000)
if new_rate > 0 then
  owed = owed + math.max(0, owed - burst) * (new_rate / rate - 1)
  rate = new_rate
end

while first < #ARGV[1] do
  local moment
  moment, first = struct.unpack('>d', ARGV[1], first)
  redis.call('ZADD', KEYS[2], moment, string.format('%.0f', moment))
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now))

local function due() return math.ceil(now + math.max(0, owed + 1 - burst) * 1000000 / rate) end
local booked = ''
for _ = 1, wanted do
  local moment = due()
  local free = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  local taken = free and tonumber(free) < moment
  if taken then moment = tonumber(free) end
  if moment - now > horizon then break end
  if taken then redis.call('ZREM', KEYS[2], free) else owed = owed + 1 end
  booked = booked .. struct.pack('>d', moment)
end

-- Who wants more asks again when half of the horizon is used up, and there is room for one.
local look = math.max(now, due() - horizon, due() - 1000000 / rate - horizon / 2)
redis.call('SET', KEYS[1], struct.pack('>dddd', now, owed, rate, burst))
return struct.pack('>dd', now, look) .. booked
