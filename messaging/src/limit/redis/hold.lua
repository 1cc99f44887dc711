-- The platform said to hold: nobody is granted units of this budget until then. A shorter hold does not end a longer one.
-- KEYS[1]  the hash of lease.lua.
-- ARGV     now (empty: the server's), microseconds to hold, further time to live.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local ends = now + tonumber(ARGV[2])
if ends <= (tonumber(redis.call('HGET', KEYS[1], 'h') or '0')) then return 0 end
redis.call('HSET', KEYS[1], 'h', string.format('%.0f', ends))
local alive = math.ceil((ends - now + tonumber(ARGV[3])) / 1000) + 1000
if redis.call('PTTL', KEYS[1]) < alive then redis.call('PEXPIRE', KEYS[1], string.format('%.0f', alive)) end
return 1
