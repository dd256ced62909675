-- A second factor was removed: the user's sessions that stand on it fall to aal1.
--
-- KEYS: index
-- ARGV: base of the user's keys, now, the factor
-- Returns 'marked'.
--
-- The first command is a write that a full Redis allows, so that being full keeps no session up.

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', tonumber(ARGV[2]))
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if #id == 36 and id:find('^[%x-]+$') then
    local record = ARGV[1] .. ':session:' .. id
    if redis.call('HGET', record, 'factor_id') == ARGV[3] then
      redis.call('HDEL', record, 'factor_id')
      redis.call('HSET', record, 'aal', 'aal1')
    end
  end
end
return 'marked'
