-- What is known of one session, in this order: revoked, suspended, live, unknown.
--
-- KEYS: record, tombstone, marks
-- ARGV: now, '1' to touch `seen_at`, seconds that must have passed since the last touch, when the session began as its
--   token says (empty: it does not)
-- Returns {'revoked'}, {'suspended', until}, {'live', name, value, …} as it was before the touch, or {'unknown'}.

local now = tonumber(ARGV[1])

if redis.call('EXISTS', KEYS[2]) == 1 then
  return {'revoked'}
end
local marks = redis.call('HMGET', KEYS[3], 'not_before', 'suspended_until', 'ending')
local stored = redis.call('HGETALL', KEYS[1])
local created_at, seen_at
for i = 1, #stored, 2 do
  if stored[i] == 'created_at' then
    created_at = stored[i + 1]
  elseif stored[i] == 'seen_at' then
    seen_at = stored[i + 1]
  end
end
-- `began_before` in `store/rules.rs` is the same.
local began = #stored > 0 and number(created_at) or tonumber(ARGV[4])
if began and number(marks[1]) > began then
  return {'revoked'}
end
local chain = rules_of(KEYS[3], marks[3])
local place = chain and place_of(chain, KEYS[1]:sub(-36))
if place then
  local record = pairs_from(stored, 1)
  local ended, lowered = judged(chain, place, record)
  if ended then
    return {'revoked'}
  elseif lowered then
    stored = flat(record)
  end
end
if number(marks[2]) > now then
  return {'suspended', marks[2]}
end
if #stored == 0 then
  return {'unknown'}
end
if ARGV[2] == '1' and now - number(seen_at) >= tonumber(ARGV[3]) then
  -- A full or read-only Redis can still be asked: the touch may fail.
  redis.pcall('HSET', KEYS[1], 'seen_at', ARGV[1])
end
return {'live', unpack(stored)}
