-- Ends sessions of one user: the record goes, a tombstone stands for it, and for all of them a mark too.
--
-- KEYS: index, marks
-- ARGV: base of the user's keys, now, which ('one', 'live', 'others', 'all', 'aal1_except', 'client'), the session or
--   client it means, the tombstone's text, sent_ms, expires_at of the access token that is known to be affected
--   (0: unknown), '1' where GoTrue has ended the sessions too, else '0', shortest life of a tombstone, skew added
--   to an access token's, session.ttl, longest TTL
-- Returns how many live sessions ended.
--
-- A session that began after `sent_ms` lives. A tombstone is `reason:time:expires_at:gotrue`: it keeps its first
-- reason and time, the latest end of an access token that is known, and that GoTrue knows, once it does. Its life
-- follows from the last two; it becomes shorter only when GoTrue has come to know of the end. So ending
-- twice is ending once, in either order. The first command is a write that a full Redis allows; after it Redis
-- takes the tombstones as well, so that being full never keeps a session alive.

local base, now, which, subject, text = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local sent_ms, expires_at = tonumber(ARGV[6]), tonumber(ARGV[7])
local in_gotrue, shortest, skew = ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local session_ttl, longest = tonumber(ARGV[11]), tonumber(ARGV[12])
local CHUNK = 1000 -- arguments to one command; Lua's stack has room for about 8000

local function number(value)
  return tonumber(value or '') or 0
end

local function extend(key, seconds)
  if redis.call('TTL', key) < seconds then
    redis.call('EXPIRE', key, seconds)
  end
end

local function in_chunks(command, keys, first)
  for i = 1, #keys, CHUNK do
    local last = math.min(i + CHUNK - 1, #keys)
    if first then
      redis.call(command, first, unpack(keys, i, last))
    else
      redis.call(command, unpack(keys, i, last))
    end
  end
end

local function life(latest, known)
  if latest == 0 then
    return session_ttl -- nobody knows how long its access token lives
  end
  local least = known == '1' and shortest or session_ttl
  return math.min(math.max(least, latest - now + skew), longest)
end

local function bury(id, expires)
  local key = base .. ':revoked:' .. id
  local latest = math.max(expires, expires_at)
  local value = string.format('%s:%d:%s', text, latest, in_gotrue)
  if redis.call('SET', key, value, 'EX', life(latest, in_gotrue), 'NX') then
    return
  end
  local there = redis.pcall('GET', key)
  local first, before, knew = string.match(type(there) == 'string' and there or '', '^(.+:%d+):(%d+):([01])$')
  if not first then
    extend(key, life(latest, in_gotrue)) -- not ours to rewrite
    return
  end
  latest = math.max(latest, number(before))
  local knows = (knew == '1' or in_gotrue == '1') and '1' or '0'
  local seconds = life(latest, knows)
  if knows == knew then
    seconds = math.max(seconds, redis.call('TTL', key))
  end
  redis.call('SET', key, string.format('%s:%d:%s', first, latest, knows), 'EX', seconds)
end

local function is_meant(id, aal, client)
  if which == 'all' then
    return true
  elseif which == 'client' then
    return client == subject
  end
  return id ~= subject and (which == 'others' or aal == 'aal1')
end

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)

if which == 'live' then
  local created_at = redis.call('HGET', base .. ':session:' .. subject, 'created_at')
  local not_before = number(redis.call('HGET', KEYS[2], 'not_before'))
  if not created_at or number(created_at) < not_before or redis.call('EXISTS', base .. ':revoked:' .. subject) == 1 then
    return 0 -- and nothing is written, whatever ids somebody tries
  end
  which = 'one'
end

if which == 'one' then
  local record = base .. ':session:' .. subject
  local stored = redis.call('HMGET', record, 'began_ms', 'expires_at')
  if number(stored[1]) > sent_ms then
    return 0
  end
  bury(subject, number(stored[2]))
  redis.call('ZREM', KEYS[1], subject)
  return redis.call('DEL', record)
end

local ended, records, gone = 0, {}, {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if #id == 36 and id:find('^[%x-]+$') then
    local record = base .. ':session:' .. id
    local stored = redis.call('HMGET', record, 'began_ms', 'expires_at', 'aal', 'client_id')
    if not stored[2] then
      gone[#gone + 1] = id
    elseif number(stored[1]) <= sent_ms and is_meant(id, stored[3], stored[4]) then
      bury(id, number(stored[2]))
      ended = ended + 1
      gone[#gone + 1] = id
      records[#records + 1] = record
    end
  else
    gone[#gone + 1] = id
  end
end
in_chunks('DEL', records)
in_chunks('ZREM', gone, KEYS[1])

if which == 'all' then
  local not_before = math.floor(sent_ms / 1000)
  if not_before > number(redis.call('HGET', KEYS[2], 'not_before')) then
    redis.call('HSET', KEYS[2], 'not_before', not_before)
  end
  extend(KEYS[2], math.min(math.max(session_ttl, expires_at - now + skew), longest))
end
return ended
