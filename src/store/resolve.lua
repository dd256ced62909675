-- The current and the previous refresh token of a live session. Writes nothing.
--
-- KEYS: record, marks, one that is never there (`never` in `keys.rs`)
-- Returns both, absent ones as nil.

local record = pairs_from(redis.call('HGETALL', KEYS[1]), 1)
local chain = rules_of(KEYS[2], redis.call('HGET', KEYS[2], 'ending'))
local place = chain and place_of(chain, KEYS[1]:sub(-36))
if place and judged(chain, place, record) then
  record = {}
end
return {record.refresh_ref or false, record.previous_ref or false}
