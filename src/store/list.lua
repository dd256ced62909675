-- Live sessions of a user, newest first: by `created_at`, within a second by `began_ms`, else by id.
--
-- KEYS: index, marks
-- ARGV: now, how many to skip, how many to give at most, how many are put in order together, and the session that alone
--   is wanted, or nothing
-- Returns how many live sessions there are, then for each that is given its id and its fields.
--
-- The index is ordered by when records expire, which is when they were last refreshed. It is read from its far end in
-- blocks, and the newest of a block come first. So the order is exact for whoever has no more sessions than a block, and
-- of somebody with very many no more than two blocks are looked at. Members that turn out to be dead leave the index; that
-- write may fail.

local now, skip, take, block, only = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]

local function number(text)
  return tonumber(text or '') or 0
end

local base = KEYS[1]:sub(1, -#':sessions' - 1)
local not_before = number(redis.call('HGET', KEYS[2], 'not_before'))

local function if_live(id)
  if #id ~= 36 or not id:find('^[%x-]+$') or redis.call('EXISTS', base .. ':revoked:' .. id) == 1 then
    return nil
  end
  local stored = redis.pcall('HMGET', base .. ':session:' .. id, 'created_at', 'began_ms')
  if stored.err or not stored[1] or number(stored[1]) < not_before then
    return nil
  end
  return {id = id, created = number(stored[1]), began = number(stored[2])}
end

local function newest_first(one, other)
  if one.created ~= other.created then
    return one.created > other.created
  elseif one.began ~= other.began then
    return one.began > other.began
  end
  return one.id > other.id
end

local found, dead, total = {}, {}, 0
if only ~= '' then
  found[1] = if_live(only)
  total = #found
else
  local members = redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf')
  local first = skip - skip % block
  while first < members and #found < take do
    local live = {}
    for _, id in ipairs(redis.call('ZREVRANGE', KEYS[1], first, math.min(first + block, members) - 1)) do
      local session = if_live(id)
      if session then
        live[#live + 1] = session
      else
        dead[#dead + 1] = id
      end
    end
    table.sort(live, newest_first)
    for i = math.max(skip - first, 0) + 1, math.min(#live, math.max(skip - first, 0) + take - #found) do
      found[#found + 1] = live[i]
    end
    first = first + block
  end
  total = members - #dead
  if #dead > 0 then
    redis.pcall('ZREM', KEYS[1], unpack(dead))
  end
end

local reply = {total}
for _, session in ipairs(found) do
  reply[#reply + 1] = session.id
  reply[#reply + 1] = redis.call('HGETALL', base .. ':session:' .. session.id)
end
return reply
