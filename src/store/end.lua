-- Ends sessions of one user: the record goes, a tombstone stands for it, and for all of them, or all but one, a mark too.
--
-- KEYS: index, marks, one that is never there (`never` in `keys.rs`)
-- ARGV: now, sessions that are dealt with at once, which ('one', 'live', 'others', 'all', 'aal1_except', 'client'), the
--   session or client it means, the tombstone's text, sent_ms, expires_at of the access token that is known to be affected
--   (0: unknown), '1' where GoTrue has ended the sessions too, else '0', shortest life of a tombstone, skew added
--   to an access token's, session.ttl, longest TTL
-- Returns how many live sessions ended; {'pending', how many by now} where more wait for `sweep.lua`.
--
-- A session that began after `sent_ms` lives. The first command is a write that a full Redis allows; after it Redis
-- takes the tombstones as well, so that being full never keeps a session alive.

local now, step = tonumber(ARGV[1]), tonumber(ARGV[2])
local rule = {
  at = ARGV[1], which = ARGV[3], subject = ARGV[4], text = ARGV[5], sent_ms = ARGV[6], expires_at = ARGV[7],
  in_gotrue = ARGV[8], shortest = ARGV[9], skew = ARGV[10], session_ttl = ARGV[11], longest = ARGV[12],
}

-- Whether a session is live, but for what it waits for.
local function is_there(base, session, not_before)
  local created_at = redis.call('HGET', base .. ':session:' .. session, 'created_at')
  local buried = redis.call('EXISTS', base .. ':revoked:' .. session) == 1
  return created_at and number(created_at) >= number(not_before) and not buried
end

local function end_one(session, not_before, noted)
  with_numbers(rule)
  local base = base_of(KEYS[2])
  local record = base .. ':session:' .. session
  if rule.which == 'live' and not is_there(base, session, not_before) then
    return 0 -- nothing is kept of it, whatever ids somebody tries
  end
  local there = named(JUDGED, redis.call('HMGET', record, unpack(JUDGED)))
  local chain = rules_of(KEYS[2], noted)
  local place = chain and place_of(chain, session)
  if place then
    local before = judged(chain, place, there)
    if before then
      end_waiting(chain, place, there, before, now)
      if rule.which == 'live' then
        return 0
      end
      there = {}
    end
  end
  if number(there.began_ms) > rule.sent_ms then
    return 0
  end
  bury(base, session, there, rule, now)
  redis.call('ZREM', place and place.set or KEYS[1], session)
  return redis.call('DEL', record)
end

-- What is remembered of an ending of all, or of all but one, for sessions of which the store is told only later
-- (`rules/late.rs` says why): `sent_ms:reason:gotrue`, and the one. The last of a kind is enough.
local function remember(field, before, spared)
  if number(string.match(before or '', '^%d+')) < rule.sent_ms then
    local value = string.format('%d:%s:%s', rule.sent_ms, reason_of(rule), rule.in_gotrue)
    redis.call('HSET', KEYS[2], field, spared and value .. ':' .. spared or value)
  end
  extend(KEYS[2], lasts(rule, now))
end

redis.call('ZREM', KEYS[1], '', unpack(expired(KEYS[1], now)))
local marked = redis.call('HMGET', KEYS[2], 'not_before', 'ending', 'all_ended', 'others_ended')
if rule.which == 'one' or rule.which == 'live' then
  return end_one(rule.subject, marked[1], marked[2])
end
local ended, pending = change_many(rule, KEYS[2], marked[2], step, now)
if rule.which == 'all' then
  local not_before = math.floor(rule.sent_ms / 1000)
  if not_before > number(marked[1]) then
    redis.call('HSET', KEYS[2], 'not_before', not_before)
  end
  remember('all_ended', marked[3])
elseif rule.which == 'others' then
  remember('others_ended', marked[4], rule.subject)
end
if pending then
  return {'pending', ended}
end
return ended
