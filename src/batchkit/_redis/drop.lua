-- Give up a claim; or drop a value and whatever claim there is, so that what is being loaded is not kept.
--
-- KEYS: the value; the claim.
-- ARGV: the token of the claim to give up, or nothing; the channel.
if ARGV[1] ~= '' then
  if redis.call('GET', KEYS[2]) == ARGV[1] then
    redis.call('DEL', KEYS[2])
    redis.pcall('PUBLISH', ARGV[2], KEYS[2])
  end
  return 0
end
redis.call('UNLINK', KEYS[1], KEYS[2])
redis.pcall('PUBLISH', ARGV[2], KEYS[1])
return 0
