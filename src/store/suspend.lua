-- Bans a user until a time, or lifts the ban. Sessions stay.
--
-- KEYS: marks
-- ARGV: until (empty: lift), TTL of the mark, 'exactly' or 'at_least' (a guess never shortens a ban)
-- Returns 'marked'.

if ARGV[1] == '' then
  redis.call('HDEL', KEYS[1], 'suspended_until')
  return 'marked'
end
if ARGV[3] == 'at_least' then
  local known = tonumber(redis.call('HGET', KEYS[1], 'suspended_until') or 0) or 0
  if known >= tonumber(ARGV[1]) then
    return 'marked'
  end
end
redis.call('HSET', KEYS[1], 'suspended_until', ARGV[1])
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return 'marked'
