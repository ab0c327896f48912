-- Keep a value.
--
-- KEYS: the value; the claim.
-- ARGV: the token of the claim without which it is not kept, or nothing; its life in ms; the value; the channel
-- for those who have no other way to hear of it.
-- Returns: 1, or 0 if the claim is gone: the value was dropped while it was loaded.
if ARGV[1] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[1] then
  if redis.call('GET', KEYS[1]) == ARGV[3] then -- asked again, since the answer was lost
    return 1
  end
  return 0
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
redis.pcall('PUBLISH', ARGV[4], KEYS[1]) -- who has no right to do so is heard by client tracking only
return 1
