-- Several token buckets for a fleet, and the calls that need permits of more than one of them in the same moment. What
-- holds for each of them is in bucket.lua.
--
-- KEYS: the limiters. ARGV: of each the name of the process and what it says; then the calls that wait, in order, in
-- runs of like ones: how many, microseconds since the first of them came, and for each limiter the permits that one
-- needs. What is returned is what each limiter says; with it stands how many of each run that needs it were served,
-- less a million where the others of that run do not stand in its line.

-- @ constants
local ASIDE = 1000000
local PROMPT = 4000     -- microseconds
local answers = {}
local lines = {}        -- how far each has come with serving
local refused = false   -- whether one of them was asked before, or is not to be asked

-- How many calls of a run could be served now, as in bucket.lua. `soon`: microseconds that may be booked ahead, if
-- those are fewer than usual.
local function could(line, calls, each, came, soon)
  if line.blocked or line.closed > 0 then return 0 end
  local granted, others = line.granted, line.others
  if granted == 0 or granted >= line.in_one_go then
    while line.passed < #others and line.before(others[line.passed + 1], came) do
      line.passed = line.passed + 1
      line.in_front = line.in_front + others[line.passed][3]
    end
  end
  local room = line.there - line.in_front
  if line.in_front == 0 then
    local reach, share = line.reach, line.share
    if soon then
      reach = line.rate * soon / 1000000
      share = #others > 0 and reach / 2 or reach
    end
    room = math.min(line.there + math.max(share, each), line.there - math.max(0, line.start) + reach)
  end
  if line.aside then room = math.min(room, line.spare - line.start - line.in_front - line.aside.kept(0)) end
  return math.max(0, math.min(calls, math.floor((room - granted) / each + 0.000001)))
end

-- Serve some of a run; the others wait in line. `lead`: microseconds before it is due, to look again.
local function serve(line, calls, count, each, came, lead)
  if line.granted == line.goes then
    local whole = math.max(0, math.floor((line.there - line.goes) / each + 0.000001))
    line.goes = line.goes + math.min(count, whole) * each
  end
  line.granted = line.granted + count * each
  if line.goes < line.granted and count > 0 then line.lump = math.max(line.lump, each) end
  if count < calls and not line.blocked then
    line.blocked, line.order, line.cost, line.lead = true, came, each, lead
  end
  line.wanted = line.wanted + (calls - count) * each
  line.last = came
end

-- Microseconds until so many more permits are there; nobody can say if other calls of the process come before.
local function wait(line, permits)
  if line.blocked then return math.huge end
  return math.max(line.closed, (line.start - line.spare + line.in_front + line.granted + permits) * 1000000 / line.rate)
end

local function tell(line, count) line.served = line.served .. struct.pack('>d', count) end

-- Have others pass a call that waits for another limiter, but for those of its permits that would not come in until
-- it can go there; below zero: so many more come in until then.
local function set_aside(line, each, came, waits, lead)
  line.aside = line.aside or {
    came = came,
    look = waits - lead,
    kept = function(later) return each - line.rate * math.max(0, waits - later) / 1000000 end
  }
end

-- A call of several limiters is served by all of them or by none. It stands in the line of the one that keeps it
-- longest, and is set aside in the others. So whoever needs only one limiter is not held up by another one, and
-- whoever needs several is not passed for ever: for the first that is set aside permits are kept. (As in
-- batchkit/_joint.py.)
local function serve_together(those, costs, calls, came)
  local soon, count = math.huge, calls
  for _, i in ipairs(those) do soon = math.min(soon, lines[i].good) end
  for _, i in ipairs(those) do count = could(lines[i], count, costs[i], came, soon) end
  local waits, longest = {}, 0
  for _, i in ipairs(those) do
    waits[i] = wait(lines[i], (count + 1) * costs[i])
    longest = math.max(longest, waits[i])
  end
  for _, i in ipairs(those) do
    if count == calls or waits[i] == longest then
      serve(lines[i], calls, count, costs[i], came, soon * LEAD)
      tell(lines[i], count)
    else
      serve(lines[i], count, count, costs[i], came, soon * LEAD)
      set_aside(lines[i], costs[i], came, longest, soon * LEAD)
      tell(lines[i], count - ASIDE)
    end
  end
end

local function serve_all(runs)
  local form, next_run = '>dd' .. string.rep('d', #KEYS), 1
  while next_run <= #runs do
    local run = {struct.unpack(form, runs, next_run)}
    next_run = table.remove(run)
    local calls, came = table.remove(run, 1), now - table.remove(run, 1)
    local those = {}
    for i = 1, #KEYS do
      if run[i] > 0 then those[#those + 1] = i end
    end
    if #those > 1 then
      serve_together(those, run, calls, came)
    else
      local line, each = lines[those[1]], run[those[1]]
      local count = could(line, calls, each, came)
      serve(line, calls, count, each, came, line.horizon * LEAD)
      tell(line, count)
    end
  end
end

-- Take a limiter in hand, and those after it; serve; and write what became of it. Nothing is written before it is
-- certain that all of them are to be asked.
local function ask(i)
  local key, me, asked = KEYS[i], ARGV[2 * i - 1], ARGV[2 * i]
  -- @ read
  if said then refused = true end
  -- @ begin
  local line = {
    rate = rate, horizon = horizon, closed = closed, spare = spare, others = others, before = before, reach = reach,
    share = share, in_one_go = in_one_go, start = start, there = there, wanted = 0, granted = 0, goes = 0,
    blocked = false, order = 0, cost = 0, last = 0, lead = 0, lump = lump, in_front = 0, passed = 0, served = '',
    -- So long its permits can wait for those of others. What may go at once is good for longer; what is booked ahead
    -- and goes so late costs the bound about one permit, as in a process that is late.
    good = math.min(horizon, lasts / 2, math.max(PROMPT, 1000000 / rate)),
  }
  lines[i] = line
  if i < #KEYS then
    ask(i + 1)
  elseif not refused then
    serve_all(ARGV[2 * i + 1])
  end
  if refused then
    answers[i] = said or struct.pack('>dd', 1, now)
    return
  end
  wanted, granted, goes, lump = line.wanted, line.granted, line.goes, line.lump
  order, cost, last, lead = line.order, line.cost, line.last, line.lead
  served, aside = line.served, line.aside
  -- @ finish
  answers[i] = said
end

ask(1)
return answers
