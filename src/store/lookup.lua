-- What is known of one session, in this order: revoked or expired, suspended, live, unknown.
--
-- KEYS: record, tombstone, marks
-- ARGV: now, '1' to touch `seen_at`, seconds that must have passed since the last touch, when the session began as its
--   token says (empty: it does not), limits (`limits_from`)
-- Returns {'revoked'}, {'expired'}, {'suspended', until}, {'live', name, value, …} as it was before the touch, or
-- {'unknown'}.

local now = tonumber(ARGV[1])
local it = known_of(KEYS[1], KEYS[2], KEYS[3], tonumber(ARGV[4]), limits_from(ARGV, 5), now)
local ended = it.state == 'revoked' or it.state == 'expired'

if not ended and number(it.suspended_until) > now then
  return {'suspended', it.suspended_until}
end
if it.state == 'live' and ARGV[2] == '1' and now - number(it.seen_at) >= tonumber(ARGV[3]) then
  -- A full or read-only Redis can still be asked: the touch may fail.
  redis.pcall('HSET', KEYS[1], 'seen_at', ARGV[1])
end
return {it.state, unpack(it.fields)}
