-- What stands before the scripts that write, after `common.lua`: how changes to sessions are carried out.

local CHUNK = 1000 -- arguments to one command; Lua's stack has room for about 8000
local TRIMMED = 256 -- expired members that one script takes out of the index
-- What rules look at.
local JUDGED = {
  'began_ms', 'expires_at', 'aal', 'factor_id', 'client_id', 'created_at', 'begun_by_ms', 'refreshed_at',
  'earlier_until',
}

local function extend(key, seconds)
  if redis.call('TTL', key) < seconds then
    redis.call('EXPIRE', key, seconds)
  end
end

local function in_chunks(command, list, ...)
  local first = {...}
  for i = 1, #list, CHUNK do
    local arguments = {unpack(first)}
    for j = i, math.min(i + CHUNK - 1, #list) do
      arguments[#arguments + 1] = list[j]
    end
    redis.call(command, unpack(arguments))
  end
end

local function expired(index, now)
  return redis.call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, TRIMMED)
end

local function life(rule, latest, known, now)
  if latest == 0 then
    return rule.session_ttl -- nobody knows how long its access token lives
  end
  local least = known == '1' and rule.shortest or rule.session_ttl
  return math.min(math.max(least, latest - now + rule.skew), rule.longest)
end

-- How long a rule may mean a session: as long as any that it ends lives, known or not.
local function lasts(rule, now)
  return math.min(math.max(rule.session_ttl, rule.expires_at - now + rule.skew), rule.longest)
end

-- When the last access token ends that GoTrue may have handed out by now for the session of a record: a refresh may
-- be recorded late (`tokens_until` in `rules/lives.rs` is the same). 0: nobody knows.
local function tokens_until(record, now)
  local expires, since = number(record.expires_at), number(record.refreshed_at)
  if expires == 0 then
    return 0
  end
  local life = since > 0 and math.max(expires - since, 0) or 0
  return math.max(now + life, expires, number(record.earlier_until))
end

-- Puts a tombstone up for the session of a record (empty where there is none), or adds to the one that is there.
--
-- It is `reason:time:expires_at:gotrue`: it keeps its first reason and time, the latest end of an access token that is
-- known or must be reckoned with (0: nobody knows, as of a record that an audit wrote, whatever token asked for the
-- ending), and that GoTrue knows, once it does. Its life follows from the last two; it becomes shorter only when GoTrue
-- has come to know of the end, and the ending tells how long tokens live. So ending twice is ending once, in either order.
local function bury(base, id, record, rule, now)
  local key = base .. ':revoked:' .. id
  local known = record.expires_at and tokens_until(record, now)
  local told = known == 0 and 0 or math.max(known or 0, rule.expires_at)
  local latest = told
  local value = string.format('%s:%d:%s', rule.text, latest, rule.in_gotrue)
  if redis.call('SET', key, value, 'EX', life(rule, latest, rule.in_gotrue, now), 'NX') then
    return
  end
  local there = redis.pcall('GET', key)
  local first, before, knew = string.match(type(there) == 'string' and there or '', '^(.+:%d+):(%d+):([01])$')
  if not first then
    extend(key, life(rule, latest, rule.in_gotrue, now)) -- not ours to rewrite
    return
  end
  latest = known ~= 0 and number(before) > 0 and math.max(told, number(before)) or 0
  local knows = (knew == '1' or rule.in_gotrue == '1') and '1' or '0'
  local seconds = life(rule, latest, knows, now)
  if knows == knew or told == 0 then
    seconds = math.max(seconds, redis.call('TTL', key))
  end
  redis.call('SET', key, string.format('%s:%d:%s', first, latest, knows), 'EX', seconds)
end

local function lower(record)
  redis.call('HDEL', record, 'factor_id')
  redis.call('HSET', record, 'aal', 'aal1')
end

local function reason_of(rule)
  return string.match(rule.text, '^[^:]*')
end

-- Notes for the next sweep that sessions ended which nobody was told of.
local function note_ended(chain, counts)
  for reason, count in pairs(counts) do
    redis.call('HINCRBY', chain.marks, 'ended:' .. reason, count)
  end
end

-- Carries a rule out that ends one session.
local function end_waiting(chain, place, record, rule, now)
  redis.call('ZREM', place.set, place.id) -- first: a full Redis allows it, and what follows
  bury(chain.base, place.id, record, rule, now)
  redis.call('DEL', chain.base .. ':session:' .. place.id)
  if record.expires_at then
    note_ended(chain, {[reason_of(rule)] = 1})
  end
end

-- Puts a session that survived its rules back into the index.
local function bring_back(chain, place, now)
  redis.call('ZREM', place.set, place.id)
  if place.score > now then
    local index = chain.base .. ':sessions'
    redis.call('ZADD', index, 'GT', place.score, place.id)
    extend(index, place.score - now)
  end
end

-- What becomes of members of a set that wait for rules from `from` on; reads only. A record that is of another type
-- is taken for none.
local function fates(chain, from, members)
  local fate = {dead = {}, lowered = {}, alive = {}, longest = 0, gone = {}}
  for i = 1, #members, 2 do
    local id, score = members[i], number(members[i + 1])
    local rule, lowered
    local record = {}
    if is_id(id) then
      record = fields_of(chain.base .. ':session:' .. id, JUDGED)
      rule, lowered = judged(chain, {from = from, id = id, score = score}, record)
    end
    if rule then
      fate.dead[#fate.dead + 1] = {id = id, record = record, rule = rule}
    elseif record.expires_at then
      fate.alive[#fate.alive + 1] = members[i + 1]
      fate.alive[#fate.alive + 1] = id
      fate.longest = math.max(fate.longest, score)
    end
    if rule or not record.expires_at then
      fate.gone[#fate.gone + 1] = id
    elseif lowered then
      fate.lowered[#fate.lowered + 1] = chain.base .. ':session:' .. id
    end
  end
  return fate
end

-- Ends and lowers, and counts by reason those that were live.
local function carry_out(chain, fate, now, counts)
  local records = {}
  for i, one in ipairs(fate.dead) do
    bury(chain.base, one.id, one.record, one.rule, now)
    records[i] = chain.base .. ':session:' .. one.id
    if one.record.expires_at then
      local reason = reason_of(one.rule)
      counts[reason] = (counts[reason] or 0) + 1
    end
  end
  in_chunks('DEL', records)
  for _, record in ipairs(fate.lowered) do
    lower(record)
  end
end

-- Carries rules out for a step of those that wait longest, and forgets rules that nobody waits for any more. The first
-- write is one that a full Redis allows.
local function sweep(chain, step, now, counts)
  local set = set_of(chain, chain.first)
  local members = redis.call('ZRANGE', set, 0, step - 1, 'WITHSCORES')
  if #members > 0 then
    local fate = fates(chain, chain.first, members)
    redis.call('ZREMRANGEBYRANK', set, 0, #members / 2 - 1)
    carry_out(chain, fate, now, counts)
    if #fate.alive > 0 then
      in_chunks('ZADD', fate.alive, chain.base .. ':sessions')
      extend(chain.base .. ':sessions', math.max(fate.longest - now, 1)) -- also where all of them expired meanwhile
    end
  end
  local before = chain.first
  while chain.first <= chain.last and redis.call('EXISTS', set_of(chain, chain.first)) == 0 do
    redis.call('HDEL', chain.marks, 'ending:' .. chain.first)
    chain.first = chain.first + 1
  end
  if chain.first > chain.last then
    redis.call('HDEL', chain.marks, 'ending')
  elseif chain.first > before then
    redis.call('HSET', chain.marks, 'ending', chain.first .. ':' .. chain.last)
  end
  return chain.first <= chain.last
end

-- Makes a change to many sessions: `rule` as texts, its numbers are numbers afterwards. The caller has written something that a full Redis allows.
-- Returns how many live sessions have ended by now, and whether more wait for it.
local function change_many(rule, marks, noted, step, now)
  local base = base_of(marks)
  local index = base .. ':sessions'
  local json = cjson.encode(rule)
  local waiting = rules_of(marks, noted)
  local counts = {}
  with_numbers(rule)
  if not waiting and redis.call('ZCARD', index) <= step then
    local chain = {base = base, marks = marks, first = 1, last = 1, rule}
    local fate = fates(chain, 1, redis.call('ZRANGE', index, 0, -1, 'WITHSCORES'))
    carry_out(chain, fate, now, counts)
    in_chunks('ZREM', fate.gone, index)
    return counts[reason_of(rule)] or 0, false
  end
  local chain = waiting or {base = base, marks = marks, first = 1, last = 0}
  while chain.last - chain.first + 1 >= RULES do
    sweep(chain, step, now, counts)
  end
  chain.last = chain.last + 1
  chain[chain.last] = rule
  local seconds = lasts(rule, now)
  if redis.call('EXISTS', index) == 1 then
    local set = set_of(chain, chain.last)
    redis.call('RENAME', index, set)
    extend(set, seconds)
    seconds = math.max(seconds, redis.call('TTL', set))
  end
  redis.call('HSET', marks, 'ending:' .. chain.last, json, 'ending', chain.first .. ':' .. chain.last)
  local more = sweep(chain, step, now, counts)
  local reason = reason_of(rule)
  local ended = counts[reason] or 0
  counts[reason] = nil
  note_ended(chain, counts)
  extend(marks, seconds)
  return ended, more or waiting ~= nil -- the next sweep tells what ended for other reasons
end
