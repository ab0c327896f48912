-- The value of a key, or whose turn it is to load it.
--
-- KEYS: the value, which says itself for how long it stays in Redis beyond its life, in ms; the claim.
-- ARGV: a token; the lease and what has to be left of the value's life, in ms; how a value begins that counts
-- as none, if there is such a one.
-- Returns: 1, the ms for which it stays, and the value; or 0, if the claim is the token's now; or 2 and the ms
-- after which the claim of another one lapses.
local value = redis.call('GET', KEYS[1])
if value then
  local stale = string.match(value, '^%[%d+,%d,(%d+)') or 0
  local left = redis.call('PTTL', KEYS[1])
  local bad = ARGV[4]
  if left - stale > tonumber(ARGV[3]) and not (bad and string.sub(value, 1, #bad) == bad) then
    return {1, left, value}
  end
end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return {0}
end
if redis.call('GET', KEYS[2]) == ARGV[1] then -- asked again, since the answer was lost
  return {0}
end
return {2, redis.call('PTTL', KEYS[2])}
