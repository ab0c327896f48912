-- The value of each key, or whose turn it is to load it.
--
-- KEYS: for each, the value, which begins with the moment at which its life ends, in ms; and the claim.
-- ARGV: the lease, and what has to be left of a value's life, in ms; how a value begins that counts as none, or
-- nothing; then for each a token.
-- Returns: the moment, in ms; and for each the value; or 0, if the claim is the token's now; or the ms after which
-- the claim of another one lapses.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers = {now}

local function holds(value)
  local bad = ARGV[3]
  if not value or value == '' or bad ~= '' and string.sub(value, 1, #bad) == bad then
    return false
  end
  local ends = tonumber(string.match(value, '^(%d+) ')) -- what somebody else wrote has none: the reader will say
  return not ends or ends - now > tonumber(ARGV[2])
end

for index = 1, #KEYS, 2 do
  local token = ARGV[(index + 7) / 2]
  local value = redis.call('GET', KEYS[index])
  if holds(value) then
    answers[#answers + 1] = value
  else
    local made = redis.pcall('SET', KEYS[index + 1], token, 'NX', 'PX', ARGV[1])
    if made and made.err then
      if string.find(made.err, 'READONLY', 1, true) then -- a replica now: what it has may be old
        return made
      end
      answers[#answers + 1] = made -- there is no room, say: other values can be read
    elseif made or redis.call('GET', KEYS[index + 1]) == token then -- or asked again: the answer was lost
      answers[#answers + 1] = 0
    else
      answers[#answers + 1] = math.max(1, redis.call('PTTL', KEYS[index + 1]))
    end
  end
end
return answers
