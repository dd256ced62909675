-- Carries out, for a step of sessions, what changes to many of them left to do.
--
-- KEYS: marks, one that is never there (`never` in `keys.rs`)
-- ARGV: now, sessions that are dealt with at once
-- Returns '1' if more is left, else '0'; then, by reason, how many live sessions ended that nobody was told of:
-- reason, count, …

local now, step = tonumber(ARGV[1]), tonumber(ARGV[2])
local fields = pairs_from(redis.call('HGETALL', KEYS[1]), 1)
local chain = rules_of(KEYS[1], fields.ending)
local counts, told = {}, {}
local more = chain and sweep(chain, step, now, counts)
for name, count in pairs(fields) do
  local reason = string.match(name, '^ended:(.*)$')
  if reason then
    counts[reason] = (counts[reason] or 0) + number(count)
    told[#told + 1] = name
  end
end
in_chunks('HDEL', told, KEYS[1])
local reply = {more and '1' or '0'}
for reason, count in pairs(counts) do
  reply[#reply + 1] = reason
  reply[#reply + 1] = tostring(count)
end
return reply
