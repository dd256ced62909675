-- What was learned of a user's ban. Sessions stay.
--
-- KEYS: marks
-- ARGV: 'decided' (by GoTrue's answer to whoever bans), 'seen' (in its refusal of the user) or 'allowed' (it handed
--   out tokens, which is a decision where some ban is known), when (ms), until when (0: not banned), TTL of what was
--   learned
-- Returns 'marked', or 'unchanged' where the same or something later was known.
--
-- `Ban` in `rules/bans.rs` is the same and says why: of decisions the last one stands, of refusals the last time
-- and the longest ban; a refusal counts only if it is later than the decision and the ban that was decided.
-- `suspended_until` is what follows from them. The first command is a write that a full Redis allows, so that being full lets nobody in.

local how, ms, till, ttl = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

-- The text of the greater one: its digits may be more than a number of Lua's can hold.
local function later(one, other)
  return number(other) > number(one) and other or one
end

redis.call('HDEL', KEYS[1], 'suspended_until')
local known = redis.call('HMGET', KEYS[1], 'decided_ms', 'decided_until', 'seen_ms', 'seen_until')
for i = 1, #known do
  known[i] = known[i] or '0'
end
local decided_ms, decided_until, seen_ms, seen_until = unpack(known)
if how == 'allowed' and number(decided_ms) == 0 and number(seen_ms) == 0 then
  return 'unchanged' -- nobody keeps that of users who were never banned
end
if how == 'seen' then
  seen_ms, seen_until = later(seen_ms, ms), later(seen_until, till)
elseif number(ms) > number(decided_ms) then
  decided_ms, decided_until = ms, till
elseif number(ms) == number(decided_ms) then
  decided_until = later(decided_until, till)
end
local now_known = {decided_ms, decided_until, seen_ms, seen_until}
local names = {'decided_ms', 'decided_until', 'seen_ms', 'seen_until'}
local outcome = 'unchanged'
for i, name in ipairs(names) do
  if now_known[i] ~= known[i] then
    redis.call('HSET', KEYS[1], name, now_known[i])
    outcome = 'marked'
  end
end
local suspended_until = decided_until
if number(seen_ms) > number(decided_ms) and number(seen_ms) >= 1000 * number(decided_until) then
  suspended_until = seen_until
end
if number(suspended_until) > 0 then
  redis.call('HSET', KEYS[1], 'suspended_until', suspended_until)
end
local more = redis.call('HMGET', KEYS[1], 'not_before', 'all_ended', 'others_ended', 'ending')
local stands = how == 'decided' and decided_ms == ms and decided_until == till and number(seen_ms) <= number(ms)
if stands and not (more[1] or more[2] or more[3] or more[4]) then
  redis.call('EXPIRE', KEYS[1], ttl) -- a ban that it lifted may have been for a hundred years
else
  extend(KEYS[1], ttl)
end
return outcome
