-- Live sessions of a user, newest first: by `created_at`, within a second by `began_ms`, else by id.
--
-- KEYS: index, marks, one that is never there (`never` in `keys.rs`)
-- ARGV: now, how many to skip, how many to give at most, how many are put in order together, and the session that alone
--   is wanted, or nothing; limits (`limits_from`)
-- Returns how many live sessions there are, then for each that is given its id and its fields.
--
-- The index is ordered by when records expire, which is when they were last refreshed. It is read from its far end in
-- blocks, and the newest of a block come first. So the order is exact for whoever has no more sessions than a block, and
-- of somebody with very many no more than two blocks are looked at. While sessions wait for a change to many, all are
-- looked at. Members that have no record, or a tombstone, leave the index; that write may fail. Those that only a mark
-- revokes, or whose time is over, stay, for an ending to bury.

local now, skip, take, block, only = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local limits = limits_from(ARGV, 6)
local base = base_of(KEYS[2])
local marks = redis.call('HMGET', KEYS[2], 'not_before', 'ending')
local chain = rules_of(KEYS[2], marks[2])
local of = {base = base, not_before = marks[1], chain = chain, limits = limits, now = now}
local found, dead, gone = {}, 0, {}

-- Sessions of the index from one place to another.
local function indexed(from, to)
  local live = {}
  for _, id in ipairs(redis.call('ZREVRANGE', KEYS[1], from, to)) do
    local session, nothing = if_live(of, id)
    if session then
      live[#live + 1] = session
    else
      dead = dead + 1
    end
    if nothing then
      gone[#gone + 1] = id
    end
  end
  return live
end

-- Adds those that wait for a change to many and will survive it.
local function add_waiting(live)
  for n = chain.first, chain.last do
    local members = redis.call('ZRANGEBYSCORE', set_of(chain, n), '(' .. now, '+inf', 'WITHSCORES')
    for i = 1, #members, 2 do
      live[#live + 1] = if_live(of, members[i], {from = n, id = members[i], score = number(members[i + 1])})
    end
  end
end

-- Of those that begin at a place in the list, adds what belongs on the page.
local function add_found(live, first)
  table.sort(live, newest_first)
  local before = math.max(skip - first, 0)
  for i = before + 1, math.min(#live, before + take - #found) do
    found[#found + 1] = live[i]
  end
end

local total
if only ~= '' then
  found[1] = if_live(of, only, chain and place_of(chain, only))
  total = #found
else
  local members = redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf')
  if chain then
    local live = indexed(0, members - 1)
    add_waiting(live)
    add_found(live, 0)
    total = #live
  else
    local first = skip - skip % block
    while first < members and #found < take do
      add_found(indexed(first, math.min(first + block, members) - 1), first)
      first = first + block
    end
    total = members - dead
  end
  for i = 1, #gone, block do
    redis.pcall('ZREM', KEYS[1], unpack(gone, i, math.min(i + block - 1, #gone)))
  end
end

local reply = {total}
for _, session in ipairs(found) do
  local fields = redis.call('HGETALL', base .. ':session:' .. session.id)
  if session.lowered then
    local record = pairs_from(fields, 1)
    record.aal, record.factor_id = 'aal1', nil
    fields = flat(record)
  end
  reply[#reply + 1] = session.id
  reply[#reply + 1] = fields
end
return reply
