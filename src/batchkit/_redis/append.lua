-- Have whatever a rule tells of count as dropped, if its load began before this moment.
--
-- KEYS: the rules, as in open.lua.
-- ARGV: the last moment that is known of; for how long the rules are kept, in ms; how many at most; the channel;
-- the rule: 't' and a tag, or 'p' and the beginning of a text, or 'q' and that of a tuple.
local last = tonumber(redis.call('ZSCORE', KEYS[1], '*') or '-1')
local time = redis.call('TIME')
local moment = math.max(time[1] * 1000000 + time[2], last + 1, tonumber(ARGV[1]) + 1)
local now = string.format('%.0f', moment)
if ARGV[5] == 'p' then -- all
  redis.call('DEL', KEYS[1])
  last = -1
else
  redis.call('ZADD', KEYS[1], now, ARGV[5])
end
if last < 0 then
  redis.call('ZADD', KEYS[1], now, '^')
end
redis.call('ZADD', KEYS[1], now, '*')
local surplus = redis.call('ZCARD', KEYS[1]) - 2 - tonumber(ARGV[3])
if surplus > 0 then -- what the oldest ones said is said of all that was kept before
  local oldest = redis.call('ZRANGE', KEYS[1], 0, surplus + 1, 'WITHSCORES')
  for index = 1, #oldest, 2 do
    if surplus > 0 and oldest[index] ~= '*' and oldest[index] ~= '^' then
      redis.call('ZREM', KEYS[1], oldest[index])
      redis.call('ZADD', KEYS[1], oldest[index + 1], '^')
      surplus = surplus - 1
    end
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.pcall('PUBLISH', ARGV[4], KEYS[1])
return 0
