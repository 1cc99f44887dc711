-- One lease call for one budget: takes the report of a process, and gives it its next block.
--
-- What is kept, so that over any span t no more than burst + rate * t is admitted by all processes together:
--   level (units that are free; below zero: units promised ahead) + units out (given, and not reported as used) <= capacity.
-- So a unit that is out keeps its place in the bucket until its holder says that it was used, gives it back, or its time is over.
--
-- KEYS[1]  a hash: l level, a its time, h held until, w who waits for the next unit, v until when, o:<holder> "units:until".
-- ARGV     now (empty: the server's), period, capacity, want, horizon, most ahead of all, most ahead of one, life, holder,
--          spent, age of the last use, back, refill, debt, level if the key is new (empty: full), further time to live,
--          units told or paid for as used that were not.
--          Times in microseconds.
-- Answers  refilled, granted, nanoseconds until the first of them is ready (below zero: it was ready before), microseconds until
--          the next unit is free, and until asking makes sense, microseconds held, level.
local NEAR, GRACE = 1e-9, 20000
local now, steps_back = tonumber(ARGV[1]), false
if not now then
  -- A server that took over may be behind: the bucket does not stand still until it has caught up. Callers' times just overtake
  -- each other on their way, and no span is counted twice for that.
  steps_back = true
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local period, capacity, want, horizon = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local ahead_all, ahead_one, life, me = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), 'o:' .. ARGV[9]
local spent, age, back, refill = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local debt, fresh, more_ttl, unspent = tonumber(ARGV[14]), tonumber(ARGV[15]) or capacity, tonumber(ARGV[16]), tonumber(ARGV[17])

local level, at, hold, waiter, waits_until = nil, now, 0, nil, 0
local out, mine, mine_until, last_until, others, releases, gone = 0, 0, 0, now, {}, {}, {}
local flat = redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  local field, value = flat[i], flat[i + 1]
  if field == 'l' then level = tonumber(value)
  elseif field == 'a' then
    at = tonumber(value)
    if steps_back then at = math.min(at, now) end
  elseif field == 'h' then hold = tonumber(value)
  elseif field == 'w' then waiter = value
  elseif field == 'v' then waits_until = tonumber(value)
  else
    local split = string.find(value, ':', 1, true)
    local units, ends = tonumber(string.sub(value, 1, split - 1)), tonumber(string.sub(value, split + 1))
    out = out + units
    if field == me then
      mine, mine_until = units, ends
    elseif ends <= now then
      releases[#releases + 1] = {ends, units}
      gone[#gone + 1] = field
    else
      last_until = math.max(last_until, ends)
      others[field] = true
      others[1] = (others[1] or 0) + 1
    end
  end
end
if not level then level = math.min(fresh, capacity) end

-- The holder's own report.
local returned = 0
if mine > 0 then
  local used = math.min(spent, mine)
  if used > 0 then releases[#releases + 1] = {math.min(now - age, mine_until), used} end
  mine = mine - used
  if mine_until > now then
    returned = math.min(back, mine)
  elseif mine > 0 then
    releases[#releases + 1] = {mine_until, mine}
    mine = 0
  end
end

-- Units come free with time, up to the room that those which are out leave.
table.sort(releases, function(one, other) return one[1] < other[1] end)
local function accrue(to)
  level = math.min(capacity - out, level + math.max(0, to - at) / period)
  at = math.max(at, to)
end
for _, release in ipairs(releases) do
  accrue(release[1])
  out = out - release[2]
end
accrue(now)
if returned + unspent > 0 then
  mine, out = mine - returned, out - returned
  level = math.min(capacity - out, level + returned + unspent)
end
if debt > 0 then level = math.max(level - debt, math.min(level, 0)) end
local refilled = math.max(0, math.min(refill, math.floor(level + NEAR)))
level = level - refilled

-- The next block: what is free, and where the bucket is deep enough, what comes free within the horizon.
local granted, ready = 0, 0
local held = hold > now
local other_waits = waiter and waiter ~= me and waits_until > now
local asks_more = want > 0 and not held
if asks_more then
  local free = math.max(0, math.floor(level + NEAR))
  if other_waits then free = math.max(0, free - 1) end
  granted = math.min(want, free)
  if granted < want and ahead_one > 0 then
    -- Who is alone may fill the horizon, others share it, and leave a unit to who has none.
    local sharers, left = (others[1] or 0) + 1, 0
    if other_waits and not others[waiter] then sharers, left = sharers + 1, 1 end
    local one = math.min(ahead_one, math.max(1, math.floor(horizon / period / sharers)))
    local ahead = math.floor(level + horizon / period + NEAR) - left
    granted = math.max(granted, math.min(want, ahead, ahead_all - out - left, one - mine))
  end
  ready = (1 - level) * period
  level, out, mine = level - granted, out + granted, mine + granted
  if granted > 0 then mine_until = now + life end
end

-- When more can be had.
local wait = math.max(0, math.ceil((1 - level - NEAR) * period))
local ask = wait
if ahead_one > 0 then ask = math.max(0, math.ceil((1 - level - NEAR) * period - horizon)) end
if held then
  wait = math.max(wait, hold - now)
  ask = hold - now
elseif asks_more and granted == 0 then
  if other_waits then
    ask = math.max(1000, math.min(5000, waits_until - now))
    wait = math.max(wait, ask)
  elseif ask == 0 then
    ask = math.max(1000, math.min(wait, horizon / 4))
  end
  if not other_waits then waiter, waits_until = me, now + ask + GRACE end
else
  -- Less than was wanted: there is no more to be had until a part of it is used.
  if granted < want then ask = math.max(ask, 1000, math.ceil((ready + granted * period) / 2)) end
  if waiter == me then waiter, waits_until = '', 0 end
end

if mine > 0 then last_until = math.max(last_until, mine_until) end
redis.call('HSET', KEYS[1], 'l', level, 'a', at, 'w', waiter or '', 'v', waits_until, me, mine .. ':' .. string.format('%.0f', mine_until))
if mine == 0 then gone[#gone + 1] = me end
if #gone > 0 then redis.call('HDEL', KEYS[1], unpack(gone)) end
local alive = math.max((capacity - level) * period, last_until - now, hold - now, waits_until - now)
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil((alive + more_ttl) / 1000) + 1000))
return {refilled, granted, math.floor(ready * 1000), math.ceil(wait), math.ceil(ask), math.max(0, math.ceil(hold - now)), string.format('%.9f', level)}
