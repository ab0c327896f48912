-- Give up claims; or drop values and whatever claims there are, so that what is being loaded is not kept.
--
-- KEYS: for each, the value; and the claim.
-- ARGV: the channel; then for each the token of the claim to give up, or nothing.
-- Returns: 0, and for each 0.
local answers = {0}
for index = 1, #KEYS, 2 do
  local value, claim, token = KEYS[index], KEYS[index + 1], ARGV[(index + 3) / 2]
  if token == '' then
    redis.call('UNLINK', value, claim)
    redis.pcall('PUBLISH', ARGV[1], value)
  elseif redis.call('GET', claim) == token then
    redis.call('DEL', claim)
    redis.pcall('PUBLISH', ARGV[1], claim)
  end
  answers[#answers + 1] = 0
end
return answers
