-- Bans a user until a time, or lifts the ban. Sessions stay.
--
-- KEYS: marks
-- ARGV: until (empty: lift), TTL of the mark
-- Returns 'marked'.

if ARGV[1] == '' then
  redis.call('HDEL', KEYS[1], 'suspended_until')
  return 'marked'
end
redis.call('HSET', KEYS[1], 'suspended_until', ARGV[1])
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return 'marked'
