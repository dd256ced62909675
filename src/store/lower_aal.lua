-- A second factor was removed: the user's sessions that stand on it fall to aal1.
--
-- KEYS: index, marks, one that is never there (`never` in `keys.rs`)
-- ARGV: now, sessions that are dealt with at once, the factor, session.ttl, longest TTL
-- Returns 'marked'; {'pending', 0} where more wait for `sweep.lua`.
--
-- The first command is a write that a full Redis allows, so that being full keeps no session up.

local now = tonumber(ARGV[1])
local rule = {at = ARGV[1], which = 'lower', subject = ARGV[3], text = '', session_ttl = ARGV[4], longest = ARGV[5]}
redis.call('ZREM', KEYS[1], '', unpack(expired(KEYS[1], now)))
local _, pending = change_many(rule, KEYS[2], redis.call('HGET', KEYS[2], 'ending'), tonumber(ARGV[2]), now)
if pending then
  return {'pending', 0}
end
return 'marked'
