-- One token bucket for a fleet, and the line of processes before it.
--
-- What is owed is a number of permits at a moment of the server's clock, as in batchkit/_core/bucket.py; it may
-- exceed the burst, by what was booked ahead: the k-th permit beyond the burst is due k/rate later. Times are
-- whole microseconds. Nothing is reckoned from a moment that the clock jumped over: `owed` and `closed` count
-- from `at`, and a clock that was set back moves `at`.
--
-- KEYS: the limiter, a hash. Its fields:
--   state: the numbers below.
--   line: the processes that wait, in order; of each the numbers below and its name, which ends with a zero.
--   here: the processes that were here lately, whoever came last is the last: ' name=microseconds' of each.
--   controller: what a controller of the rate knows, after the number of that.
--   the name of a process: the number of the last question of its that changed anything, and the answer, so that
--   a question that comes twice is answered once.
-- All numbers but those in `here` are packed as doubles.
--
-- ARGV: the name of the process, what it says, and the calls that wait.
--
-- What stands between the lines `-- @` is part of buckets.lua, too.

-- @ constants

local LATE = 100000      -- a process that is so late for its look is passed over
local LONGEST = 280000   -- it looks again at least so often while it waits
local FAR = 10000000     -- no promised look lies so far ahead: the clock was set back
local LATELY = 30000000  -- a process was here lately
local REMEMBERED = 3600000000  -- so long a rate that is not the configured one is remembered
local FOREVER = 1000000000000000  -- milliseconds; Redis refuses to remember anything for much longer
local SOON = 4           -- permits a second; from there on two more are booked ahead
local LEAST = 1000       -- no two looks are closer than that
local LASTS = 30000      -- so long a permit that may go at once is good, at most
local LOWS = 4           -- so many of what was owed lately are kept
local BACK = 500000      -- so long after its grant a permit may be handed back, and while one and a half come in
local LAST_BACK = 12000000 -- but no longer
local LEAD = 0.3         -- of the horizon: so long before its permits are due a process looks again

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- @
local key, me, asked, calls_of = KEYS[1], ARGV[1], ARGV[2], ARGV[3]

-- @ read
local serial, deadline, presence, conf_rate, conf_burst, cold, horizon, back, back_since, went, charge, pause,
  remaining, new_rate, new_burst, extra, stands, opinion, first = struct.unpack('>dddddddddddddddddd', asked)
-- From there on: so many numbers of a controller, if there is one.
local got
if presence + opinion > 0 then
  got = redis.call('HMGET', key, 'state', me, 'line', 'here', 'controller')
else
  got = redis.call('HMGET', key, 'state', me, 'line')
end

-- A question that was sent twice is answered once; one that comes too late was given up by who sent it.
local said
if got[2] then
  local last = struct.unpack('>d', got[2])
  if last == serial then said = struct.pack('>d', 2) .. string.sub(got[2], 9) end
  if last > serial then deadline = 1 end
end
if not said and deadline > 0 and now > deadline then said = struct.pack('>dd', 1, now) end
-- @
if said then return said end

-- @ begin
local changes = {}              -- fields and what they are to hold, besides the state and the last answer

local rate = conf_rate          -- permits a second
local burst = conf_burst
local version = 0               -- changes so far
local at = now                  -- the moment for which the following is meant
local owed = cold * burst       -- permits that have to come in until the bucket is full
local spare = 0                 -- whole permits handed back while more than the burst was owed: they may go at once
local closed = 0                -- microseconds for which nobody goes
local ahead = 0                 -- microseconds until the last permit that was booked ahead is due
local lump = 0                  -- permits of the largest call among those
local lows = {}                 -- moments, and what was owed then; of those after any moment, the first is the least
local returns = BACK            -- microseconds after its grant within which a permit may be handed back
local gone = 0                  -- permits let go, in all
local slot, held, kept = 0, 0, 0  -- permits to go at once, of a span of time that began at slot, and of the one before
local members = 0               -- processes that were here lately
local expires = 0               -- when the bucket is forgotten
local rate_of, burst_of = conf_rate, conf_burst  -- what was configured
if got[1] then
  local pairs_at
  rate, burst, version, at, owed, spare, closed, ahead, gone, slot, held, kept, members, expires, rate_of, burst_of,
    lump, pairs_at = struct.unpack('>ddddddddddddddddd', got[1])
  returns = math.max(BACK, math.min(1500000 / rate, LAST_BACK))
  while pairs_at < #got[1] do
    local moment, level
    moment, level, pairs_at = struct.unpack('>dd', got[1], pairs_at)
    if now >= moment and now - moment <= returns then lows[#lows + 1] = {moment, level} end
  end
  if presence == 2 and (rate_of ~= conf_rate or burst_of ~= conf_burst) then
    rate_of, burst_of = conf_rate, conf_burst
    if new_rate == 0 then new_rate, new_burst = conf_rate, conf_burst end
  end
end

-- What came in since. A permit that may go at once is good for a while, so that a busy process can use it. While it
-- may be on its way, nothing comes in for it: or it would go beside what came in for it, and exceed the bound.
local lasts = math.max(0, math.min(LASTS, (burst * 1000000 / rate - horizon) / 2))
if now < at then at, slot, lows = now, now, {} end    -- the clock was set back
closed = math.max(0, closed - (now - at))
ahead = math.max(0, ahead - (now - at))
if ahead == 0 then lump = 0 end
local gone_of_kept = math.min(kept, went)            -- these have gone, or were handed back
kept, held = kept - gone_of_kept, math.max(0, held - (went - gone_of_kept))
local function advance(moment)
  owed = math.max(0, owed - rate * math.max(0, moment - at) / 1000000, math.min(owed, held + kept))
  at = math.max(at, moment)
end
if held + kept > 0 and now >= slot + lasts then
  advance(slot + lasts)
  slot, kept, held = slot + lasts, held, 0
  if now >= slot + lasts then
    advance(slot + lasts)
    kept = 0
  end
end
advance(now)
local function settle()
  if owed < burst and spare > 0 then owed, spare = math.max(0, owed - spare), 0 end
end
settle()

-- What is handed back counts in so far as it would still be there: no more than the least that was owed since.
local used = math.min(owed, burst) - spare           -- what is booked ahead is not used yet
while #lows > 0 and lows[#lows][2] >= used do table.remove(lows) end
lows[#lows + 1] = {now, used}
if #lows > LOWS then
  lows[2][2] = lows[1][2]
  table.remove(lows, 1)
end
local function give(permits)
  local debt = math.max(0, math.min(permits, owed - burst - ahead * rate / 1000000))  -- beyond what is booked ahead
  owed, permits = owed - debt, permits - debt
  if owed > burst then
    local whole = math.floor(permits)
    owed = owed - (permits - whole)
    -- Beside them go those that are booked: the permits of a call come in one by one, and go at once.
    spare = math.min(spare + whole, lump > 1 and math.max(0, burst - lump) or math.max(1, burst - 1))
  else
    owed = math.max(0, owed - permits)
  end
  settle()
end
if back > 0 then
  local least = used
  for i = #lows, 1, -1 do
    if lows[i][1] > back_since then least = lows[i][2] end
  end
  if now - back_since > returns then least = 0 end
  local counts = math.max(0, math.min(back, least))
  give(counts)
  for i = 1, #lows do lows[i][2] = math.max(0, lows[i][2] - counts) end
end

-- What the process has to say.
if new_rate > 0 and (new_rate ~= rate or new_burst ~= burst) then
  rate, burst, version = new_rate, new_burst, version + 1
end
if charge < 0 then give(-charge) else owed = owed + charge end
settle()
gone = gone - back + charge
if remaining >= 0 then
  local there = math.max(0, burst - owed) + spare
  if there > remaining then
    local less = math.min(spare, there - remaining)
    spare, owed = math.floor(spare - less), owed + there - remaining - less
  end
end
if pause > closed then closed = pause end

-- A controller of the rate decides by what it knew last. If another process did so since, it is told that first.
local heard, edition, memory = 0, 0, ''
if opinion > 0 then
  if got[5] then
    edition = struct.unpack('>d', got[5])
    memory = string.sub(got[5], 9)
  end
  local based_on, its_rate, its_pause, rest = struct.unpack('>ddd', asked, first)
  if rest <= #asked and based_on == edition then
    heard, edition, memory = 1, edition + 1, string.sub(asked, rest)
    changes = {'controller', struct.pack('>d', edition) .. memory}
    if its_rate ~= rate then rate, version = its_rate, version + 1 end
    closed = math.max(closed, its_pause)
  end
end

-- Who else waits, in order: those who died are forgotten.
local line = got[3] or ''
local others, entries, next_at = {}, {}, 1
while next_at <= #line do
  local begins = next_at
  local order, look, wants, last, name
  order, look, wants, last, name, next_at = struct.unpack('>dddds', line, begins)
  if look + LATE >= now and look - now <= FAR and name ~= me then
    others[#others + 1] = {order, look, wants, last, name}
    entries[#entries + 1] = string.sub(line, begins, next_at - 1)
  end
end

-- Who comes before whom.
local function before(other, came)
  return other[1] < came or (other[1] == came and other[5] < me)
end
local reach = rate * horizon / 1000000
if rate >= SOON then reach = reach + 2 end           -- or a question would bring hardly more than one permit
local share = #others > 0 and math.max(reach / 2, math.min(reach, 2)) or reach  -- of what is not there yet
local in_one_go = rate * horizon >= 1000000 and share or 0
local start = owed - burst                           -- the k-th is due when start + k have come in
local there = math.max(0, -start) + spare
local wanted, granted, goes, blocked = 0, 0, 0, false  -- of those granted, some may go at once
local order, cost, last = 0, 0, 0                    -- of the first call that is not served, and of the last
local lead = horizon * LEAD
local served, aside = '', nil                        -- only where several limiters are asked: see there
-- @

-- Serve this process, in the order of arrival: what is there after all who come before it have had theirs; and
-- ahead of time, if nobody comes before it. In runs of like calls: how many, microseconds since the first of them
-- came, and the cost of each.
local in_front, passed, next_run = 0, 0, 1
while next_run <= #calls_of do
  local calls, age, each
  calls, age, each, next_run = struct.unpack('>ddd', calls_of, next_run)
  local count = 0
  if not blocked then
    if granted == 0 or granted >= in_one_go then     -- or whoever is first goes on, whoever else came before
      while passed < #others and before(others[passed + 1], now - age) do
        passed = passed + 1
        in_front = in_front + others[passed][3]
      end
    end
    local room = there - in_front
    if in_front == 0 then
      room = math.min(there + math.max(share, each), there - math.max(0, start) + reach)
    end
    if closed > 0 then room = 0 end
    count = math.max(0, math.min(calls, math.floor((room - granted) / each + 0.000001)))
    if granted == goes then                          -- whole calls only
      goes = goes + math.min(count, math.max(0, math.floor((there - goes) / each + 0.000001))) * each
    end
    granted = granted + count * each
    if goes < granted and count > 0 then lump = math.max(lump, each) end
    if count < calls then
      blocked, order, cost = true, now - age, each
    end
  end
  wanted = wanted + (calls - count) * each
  last = now - age
end

-- @ finish
local at_once = math.min(granted, spare)
spare = spare - at_once                              -- these may go although more is owed; `start` counts without them
owed = owed + granted - at_once
gone = gone + granted
if granted > at_once then ahead = math.max(ahead, (start + granted - at_once) * 1000000 / rate) end

-- A lease: more than who waits wants, if so much is there that nobody will miss it.
local leased = 0
if extra > 0 and wanted == 0 and not aside and #others == 0 and closed == 0 and spare == 0 and lasts > 0 then
  leased = math.max(0, math.min(extra, math.floor(burst - owed - reach)))
  owed, gone = owed + leased, gone + leased
end
if lasts > 0 and goes + leased > 0 then
  if held + kept == 0 then slot = now end
  held = held + goes + leased
end
local level = owed - spare

-- When to look again.
local function due(permits) return math.max(closed, (level - burst + permits) * 1000000 / rate) end
local function stand(came, look, wants, last)
  local place = 1
  while place <= #others and before(others[place], came) do place = place + 1 end
  table.insert(entries, place, struct.pack('>dddds', came, now + look, wants, last, me))
end
local look
if wanted > 0 and stands == 1 then
  local before_me, latest = 0, 0
  for i = 1, #others do
    if before(others[i], order) then
      local theirs = others[i]
      if theirs[4] == math.huge then                 -- it is only kept for
        before_me = before_me + theirs[3]
      else                                           -- about so many of its calls came before: it tells of two
        local part = theirs[4] > order and (order - theirs[1]) / (theirs[4] - theirs[1]) or 1
        before_me = before_me + math.max(1, theirs[3] * part * 0.9)
        local late = now - theirs[2]                 -- it is about to come: the later it is, the less so
        latest = math.max(latest, late < 0 and -late + LEAST or math.min(late + 2 * LEAST, LATE - late + LEAST))
      end
    end
  end
  if aside and burst - level - aside.kept(0) < cost then latest = math.max(latest, aside.look) end
  look = math.max(LEAST, due(before_me + cost) - lead, latest)
  if closed == 0 then look = math.min(look, LONGEST) else look = math.min(math.max(look, closed), FAR / 2) end
  look = math.ceil(look)
  stand(order, look, wanted + (aside and math.max(0, aside.kept(look)) or 0), last)
else
  if aside and stands == 1 then
    local till = math.ceil(math.max(LEAST, math.min(aside.look, LONGEST)))
    local kept = aside.kept(till)
    if kept > -reach then stand(aside.came, till, math.max(kept, 0.000001), math.huge) end
  end
  local others_want = 0
  for i = 1, #others do others_want = others_want + others[i][3] end
  local theirs = rate * horizon < 1000000 and 0 or math.min(others_want / rate * 500000, 2 * horizon)
  look = math.max(0, due(0) - horizon * LEAD + theirs)  -- who comes now would stand behind the others
  if closed == 0 then look = math.min(look, LONGEST) end  -- others may give back, or change the rate
end

local new_line = table.concat(entries)
if new_line ~= line then changes[#changes + 1], changes[#changes + 2] = 'line', new_line end

-- Who is here: those who have gone are forgotten, whoever was here first is looked at first.
if presence > 0 then
  local here = got[4] or ''
  local mine = string.find(here, ' ' .. me .. '=', 1, true)
  if mine then
    here = string.sub(here, 1, mine - 1) .. string.sub(here, string.find(here, ' ', mine + 1, true) or #here + 1)
  else
    members = members + 1
  end
  local kept_from = 1
  for name, moment, after in string.gmatch(here, ' ([^=]+)=(%d+)()') do
    local since = now - moment
    if math.abs(since) < LATELY then break end
    if since > 0 then redis.call('HDEL', key, name) end
    members, kept_from = members - 1, after
  end
  here = string.format('%s %s=%.0f', string.sub(here, kept_from), me, now)
  changes[#changes + 1], changes[#changes + 2] = 'here', here
end

local answer = struct.pack('>ddddddddddddddddd', now, version, rate, burst, at_once, granted - at_once, start, leased,
  closed, look, level, gone, presence > 0 and members or 0, lasts, heard, edition, #served / 8) .. served
local needed = now + owed * 1000000 / rate + closed + LATELY
if rate ~= rate_of or burst ~= burst_of or edition > 0 then needed = needed + REMEMBERED end
local prolong = needed > expires or expires - needed > 2 * REMEMBERED
if prolong then expires = needed + LATELY end
local state = struct.pack('>ddddddddddddddddd', rate, burst, version, now, owed, spare, closed, ahead, gone, slot, held,
  kept, members, expires, rate_of, burst_of, lump)
for i = 1, #lows do state = state .. struct.pack('>dd', lows[i][1], lows[i][2]) end
if granted + leased + back + heard > 0 or charge ~= 0 then
  redis.call('HSET', key, 'state', state, me, struct.pack('>d', serial) .. answer, unpack(changes))
else
  redis.call('HSET', key, 'state', state, unpack(changes))
end
if prolong then
  local left = math.min(math.ceil((expires - now) / 1000), FOREVER)
  redis.call('PEXPIRE', key, string.format('%.0f', left))
end
said = struct.pack('>d', 0) .. answer .. memory
-- @
return said
