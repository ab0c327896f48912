-- All rules, by which values count as dropped. Where Redis does not know what it knew once, whatever was kept
-- before counts as dropped.
--
-- KEYS: the rules, each with its moment; '*' has the last moment, and what was kept before that of '^' counts
-- as dropped.
-- ARGV: the last moment that is known of; for how long the rules are kept, in ms.
local last = tonumber(redis.call('ZSCORE', KEYS[1], '*') or '-1')
local known = tonumber(ARGV[1])
if last < 0 or last < known then
  local time = redis.call('TIME')
  local now = string.format('%.0f', math.max(time[1] * 1000000 + time[2], known + 1))
  redis.call('DEL', KEYS[1])
  redis.call('ZADD', KEYS[1], now, '*', now, '^')
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
