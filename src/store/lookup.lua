-- What is known of one session, in this order: revoked or expired, suspended, live, unknown.
--
-- KEYS: record, tombstone, marks
-- ARGV: now, '1' to touch `seen_at`, seconds that must have passed since the last touch, when the session began as its
--   token says (empty: it does not), limits (`limits_from`)
-- Returns {'revoked'}, {'expired'}, {'suspended', until}, {'live', name, value, …} as it was before the touch, or
-- {'unknown'}.

local now, limits = tonumber(ARGV[1]), limits_from(ARGV, 5)

local buried = buried_as(KEYS[2])
if buried then
  return {buried}
end
local marks = redis.call('HMGET', KEYS[3], 'not_before', 'suspended_until', 'ending')
local stored = redis.call('HGETALL', KEYS[1])
local record = pairs_from(stored, 1)
-- `began_before` in `store/rules.rs` is the same.
local began = #stored > 0 and number(record.created_at) or tonumber(ARGV[4])
if began and number(marks[1]) > began then
  return {'revoked'}
end
local chain = rules_of(KEYS[3], marks[3])
local place = chain and place_of(chain, KEYS[1]:sub(-36))
if place then
  local ended, lowered = judged(chain, place, record)
  if ended then
    return {ended_as(ended.text)}
  elseif lowered then
    stored = flat(record)
  end
end
if record.created_at and is_expired(limits, record, now)
  or #stored == 0 and began and has_passed(limits.absolute, began, now) then
  return {'expired'}
end
if number(marks[2]) > now then
  return {'suspended', marks[2]}
end
if #stored == 0 then
  return {'unknown'}
end
if ARGV[2] == '1' and now - number(record.seen_at) >= tonumber(ARGV[3]) then
  -- A full or read-only Redis can still be asked: the touch may fail.
  redis.pcall('HSET', KEYS[1], 'seen_at', ARGV[1])
end
return {'live', unpack(stored)}
