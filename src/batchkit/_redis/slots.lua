-- How many calls of a fleet are under way at once: which process holds how many slots, and the line of processes.
--
-- A process says how many slots it holds, all in all, and what its calls wait for. So whatever is asked twice, lost or
-- forgotten here, the next question sets it right. What a process holds is its own as long as it is heard of: it asks
-- at least three times within a lease.
--
-- KEYS: 1 the slots (hash). Its field `state` has the numbers below, and each process has a field. All numbers are
-- packed as doubles; times are whole microseconds of the server's clock.

local LATE = 100000      -- a process that is so late for its look is passed over
local LONGEST = 250000   -- it looks again at least so often while it waits
local SHORTEST = 5000    -- and at most so often
local FIRST = 100000     -- who is first in line looks again at least so often
local PART = 0.02        -- of a call's time: so long a slot may stand free until who is first looks again
local MEMORY = 10000000  -- so long it is remembered how long calls take
local GUESS = 500000     -- so long a call takes as far as nobody knows
local SURE = 0.8         -- of a wait that is estimated: the rest is for the error
local FOREVER = 1000000000000000  -- milliseconds; Redis refuses to remember anything for much longer
local LEASES = 3         -- after so many leases of silence a process, and in the end all of it, is forgotten

local me, asked = ARGV[1], ARGV[2]
local serial, deadline, presence, conf_limit, closes, lease, holds, ended, pause, new_limit, stands, first =
  struct.unpack('>ddddddddddd', asked)
-- From there on: how many calls, the cost of each, and microseconds since the first of them came, again and again.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limit = conf_limit
local limit_of = conf_limit     -- what was configured
local version = 0               -- changes so far
local at = now                  -- when somebody was heard of last
local closed = closes           -- microseconds for which nobody goes; so long where nothing is known
local busy = 0                  -- slots in use times microseconds, of late
local over = 0                  -- calls that ended, of late
local longest = lease           -- of all leases

local held_before = 0           -- by this process
local others = {}               -- name, serial, moment when heard, lease, held, order, look, wants, order of the last
local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  local name, words = entries[i], entries[i + 1]
  if name == 'state' then
    limit, limit_of, version, at, closed, busy, over, longest = struct.unpack('>dddddddd', words)
  elseif name == me then
    local last, _, _, before = struct.unpack('>dddd', words)
    if last > serial then deadline = 1 end
    held_before = before
  else
    others[#others + 1] = {name, struct.unpack('>dddddddd', words)}
  end
end
if deadline > 0 and now > deadline then return struct.pack('>dd', 1, now) end

if presence == 2 and limit_of ~= conf_limit then
  limit_of = conf_limit
  if new_limit == 0 then new_limit = conf_limit end
end
if new_limit > 0 and new_limit ~= limit then limit, version = new_limit, version + 1 end
longest = math.max(longest, lease)

-- Nobody was heard of for a lease, or the clock was set back: Redis stood still, or its clock was set. Those who
-- hold something could not say so: they have another lease for that.
local anew = now < at or now - at > longest
local passed = anew and 0 or now - at
closed = math.max(0, closed - passed)
if pause > closed then closed = pause end

local held, members = holds, 1  -- by all; processes
local line = {}
for i = 1, #others do
  local other = others[i]
  if anew then
    other[3], other[7] = now, math.min(other[7], now + LATE)
    redis.call('HSET', KEYS[1], other[1], struct.pack('>dddddddd', unpack(other, 2, 9)))
  end
  if now - other[3] > other[4] * LEASES then
    redis.call('HDEL', KEYS[1], other[1])
  else
    members = members + 1
    if now - other[3] <= other[4] then held = held + other[5] end
    if other[8] > 0 and now <= other[7] + LATE then line[#line + 1] = other end
  end
end
table.sort(line, function(a, b) return a[6] < b[6] or (a[6] == b[6] and a[1] < b[1]) end)

-- How long a call takes: slots in use times the time, by the calls that ended meanwhile (Little's law).
local fade = math.exp(-passed / MEMORY)
busy, over = busy * fade + (held - holds + held_before) * passed, over * fade + ended
local takes = over >= 1 and busy / over or GUESS

-- Serve this process, in the order of arrival: what is free after all who come before it have had theirs.
local free = closed > 0 and 0 or math.max(0, limit - held)
local granted, wants, before, blocked, order, last, in_front, ahead = 0, 0, 0, false, 0, 0, 0, 0
while first < #asked do
  local calls, each, age
  calls, each, age, first = struct.unpack('>ddd', asked, first)
  local served = 0
  if not blocked then
    local mine = now - age
    while before < #line and (line[before + 1][6] < mine or (line[before + 1][6] == mine and line[before + 1][1] < me)) do
      before = before + 1
      in_front = in_front + line[before][8]
      local theirs = line[before]                      -- about so many of its calls came before: it tells of two
      local part = theirs[9] > mine and (mine - theirs[6]) / (theirs[9] - theirs[6]) or 1
      ahead = ahead + math.max(1, theirs[8] * part * SURE)
    end
    served = math.max(0, math.min(calls, math.floor((free - in_front - granted) / each)))
    granted = granted + served * each
    if served < calls then blocked, order = true, mine end
  end
  wants = wants + (calls - served) * each
  last = now - age
end

-- When to look again: when those who come before have had theirs; and who is first, often enough that a slot that
-- another process frees does not stand free for long.
local look = 0
if wants > 0 and stands == 1 then
  local soon = math.max(SHORTEST, math.min(FIRST, takes * PART))
  if held == holds and free <= granted then soon = LONGEST end
  look = math.max(soon, math.min(LONGEST, (ahead - free) * takes / limit * SURE))
  if closed > 0 then look = math.max(SHORTEST, math.min(closed, LONGEST)) end
  look = math.ceil(look)
end

local theirs = 0
for i = 1, #line do theirs = theirs + line[i][8] end
redis.call('HSET', KEYS[1],
  'state', struct.pack('>dddddddd', limit, limit_of, version, now, closed, busy, over, longest),
  me, struct.pack('>dddddddd', serial, now, lease, holds + granted, order, now + look, look > 0 and wants or 0, last))
local left = math.min(math.ceil((longest * LEASES + closed) / 1000), FOREVER)
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', left))
return struct.pack('>dddddddddd', 0, now, version, limit, granted, closed, look, theirs, members,
  limit - held - granted)
