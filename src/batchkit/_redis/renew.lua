-- The owner of claims lives.
--
-- KEYS: the claims.
-- ARGV: the lease in ms; then for each its token.
-- Returns: 0, and for each whether it is still there, as 1 or 0.
local answers = {0}
for index = 1, #KEYS do
  local there = redis.call('GET', KEYS[index]) == ARGV[index + 1]
  answers[#answers + 1] = there and redis.call('PEXPIRE', KEYS[index], ARGV[1]) or 0
end
return answers
