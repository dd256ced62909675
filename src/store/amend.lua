-- Takes over from GoTrue's database what the mirror missed of one session, and puts the session into the index. What
-- waits for the session is carried out first, as `record.lua` does.
--
-- KEYS: record, tombstone, marks, index
-- ARGV: now, session id, `refreshed_at` and `counter` (empty: none) of the record that was compared with the
--   database, session.ttl where a refresh was missed (else 0), then fields as name, value, …; an empty value removes
--   the field
-- Returns 1, or 0 where the session was ended or its record has changed since.

local now, session, ttl = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[5])

-- Whether the session ended by that.
local function carry_out_waiting()
  local chain = rules_of(KEYS[3], redis.call('HGET', KEYS[3], 'ending'))
  local place = chain and place_of(chain, session)
  if not place then
    return false
  end
  local record = named(JUDGED, redis.call('HMGET', KEYS[1], unpack(JUDGED)))
  local ended, lowered = judged(chain, place, record)
  if ended then
    end_waiting(chain, place, record, ended, now)
    return true
  elseif lowered then
    lower(KEYS[1])
  end
  bring_back(chain, place, now)
  return false
end

if redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
local stored = redis.call('HMGET', KEYS[1], 'refreshed_at', 'counter')
if not stored[1] or stored[1] ~= ARGV[3] or (stored[2] or '') ~= ARGV[4] then
  return 0
end
redis.call('ZSCORE', KEYS[4], session) -- an index of another type fails here, before anything is written
if carry_out_waiting() then
  return 0
end
for i = 6, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
extend(KEYS[1], ttl)
local life = redis.call('TTL', KEYS[1])
redis.call('ZADD', KEYS[4], 'GT', now + life, session)
extend(KEYS[4], life)
return 1
