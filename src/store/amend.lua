-- Takes over from GoTrue's database what the mirror missed of one session, and puts the session into the index.
--
-- KEYS: record, tombstone, index
-- ARGV: now, session id, `refreshed_at` and `counter` (empty: none) of the record that was compared with the
--   database, session.ttl where a refresh was missed (else 0), then fields as name, value, …; an empty value removes
--   the field
-- Returns 1, or 0 where the session was ended or its record has changed since.

local now, session, ttl = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[5])

if redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
local stored = redis.call('HMGET', KEYS[1], 'refreshed_at', 'counter')
if not stored[1] or stored[1] ~= ARGV[3] or (stored[2] or '') ~= ARGV[4] then
  return 0
end
redis.call('ZSCORE', KEYS[3], session) -- an index of another type fails here, before anything is written
for i = 6, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
extend(KEYS[1], ttl)
local life = redis.call('TTL', KEYS[1])
redis.call('ZADD', KEYS[3], 'GT', now + life, session)
extend(KEYS[3], life)
return 1
