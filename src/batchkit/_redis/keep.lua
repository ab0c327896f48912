-- Keep values.
--
-- KEYS: for each, the value; and the claim.
-- ARGV: the channel for those who have no other way to hear of it; then for each, the token of the claim without
-- which it is not kept, or nothing; its life, and for how long it stays beyond that, in ms; and the value, before
-- which the moment is written at which its life ends.
-- Returns: the moment, in ms; and for each 1, or 0 if the claim is gone: it was dropped while it was loaded.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers = {now}

local function keep(value, claim, token, life, stale, text)
  if token ~= '' and redis.call('GET', claim) ~= token then
    local there = redis.call('GET', value)
    if there and string.match(there, '^%d+ (.*)$') == text then -- asked again, since the answer was lost
      return 1
    end
    return 0
  end
  redis.call('SET', value, string.format('%.0f %s', now + life, text), 'PX', life + stale)
  redis.call('DEL', claim)
  redis.pcall('PUBLISH', ARGV[1], value) -- who has no right to do so is heard by client tracking only
  return 1
end

for index = 1, #KEYS, 2 do
  local words = 2 * index
  answers[#answers + 1] = keep(
    KEYS[index], KEYS[index + 1], ARGV[words], tonumber(ARGV[words + 1]), tonumber(ARGV[words + 2]), ARGV[words + 3]
  )
end
return answers
