-- The current and the previous refresh token of a live session. Writes nothing.
--
-- KEYS: record, marks
-- Returns both, absent ones as nil.

local stored = redis.call('HMGET', KEYS[1], 'refresh_ref', 'previous_ref', unpack(JUDGED))
local chain = rules_of(KEYS[2], redis.call('HGET', KEYS[2], 'ending'))
local place = chain and place_of(chain, KEYS[1]:sub(-36))
if place then
  local record = {}
  for i, name in ipairs(JUDGED) do
    record[name] = stored[i + 2] or nil
  end
  if judged(chain, place, record) then
    return {false, false}
  end
end
return {stored[1], stored[2]}
