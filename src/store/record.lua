-- Records what an answer said about one session. Changes nothing else, and reads nothing it was not given.
--
-- KEYS: record, tombstone, marks, index
-- ARGV: now, TTL of the record, origin ('sign_in' or 'refresh'), session id, when the request was sent that a
--   banned user would have been refused (ms; 0: no such request), limits (`limits_from`), what tombstones live by:
--   shortest life, skew added to an access token's, session.ttl, longest life; how many sessions the user may have (0:
--   nobody counts, and `cap.lua` need not stand before this) and how many others end for a new one (0: it is denied); then the fields as name, value, …
-- Returns 'created', 'refreshed', 'unchanged', 'revoked' or 'denied'; {'expired', how many live sessions ended} where the
-- session's time was over when it was refreshed; {'evicted', one of the first three, 1 where more are too many, ids of
-- sessions that ended for it, …}.
--
-- Which of two records is the newer one (`store/rules.rs` holds the same rule in Rust and says why; a test
-- compares them):
--   1. Revoked (tombstone, or began before `not_before`, or ended before anybody told of it): neither, nothing is
--      written but a tombstone.
--   2. Both have a counter and they differ: the higher one.
--   3. `refreshed_at` differs: the later one.
--   4. Same second, one was made from a row of the database (`expires_at` 0): the other one.
--   5. Same second, same refresh token (or neither side has one): the later `expires_at`; without any token
--      also the higher `aal`.
--   6. Same second, a sign-in: the stored one, for whatever else is known of a session came after it.
--   7. Same second, one names the other as its previous token: the one that names.
--   8. Same second, else: the higher `aal`; if that is equal, the one that arrives last.
-- The newer one stands, with `created_at`, `began_ms` and `seen_at` of the stored one, and with its client,
-- factor, methods, address and agent where the newer one has none.

local now, ttl, origin, session = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local limits = limits_from(ARGV, 6)
local most, evicts = number(ARGV[13]), number(ARGV[14])
local FIELDS = 15 -- where they begin in ARGV

-- Where the session waits for a change to many, if it does; whether that lowers its level.
local chain, place, lowered

-- Puts the session into the index, for as long as its record lives.
local function enter()
  in_chunks('ZREM', expired(KEYS[4], now), KEYS[4])
  if place then
    bring_back(chain, place, now)
  end
  redis.call('ZADD', KEYS[4], 'GT', now + ttl, session)
  extend(KEYS[4], ttl)
end

-- The first write of a record, here and below, must be one that a full Redis refuses: a session does not get in on the
-- back of a write that is allowed.
local function create()
  redis.call('HSET', KEYS[1], unpack(ARGV, FIELDS))
  redis.call('EXPIRE', KEYS[1], ttl)
  enter()
end

-- GoTrue handed tokens out, so whoever was banned before is so no longer (`Ban::allow` in `rules/bans.rs`).
-- The first command is one that a full Redis refuses.
local function allow(allowed_ms, decided_ms, seen_ms, seen_until)
  if not (decided_ms or seen_ms) or number(allowed_ms) <= number(decided_ms) then
    return
  end
  redis.call('HSET', KEYS[3], 'decided_ms', allowed_ms, 'decided_until', 0)
  if number(seen_ms) > number(allowed_ms) then
    redis.call('HSET', KEYS[3], 'suspended_until', seen_until)
  else
    redis.call('HDEL', KEYS[3], 'suspended_until')
  end
end

-- An ending of sessions whose access token lives until then (0: as their records say); in GoTrue they have ended already,
-- or have not.
local function ending(reason, in_gotrue, expires_at)
  return with_numbers({text = reason .. ':' .. now, expires_at = expires_at, in_gotrue = in_gotrue,
    shortest = ARGV[9], skew = ARGV[10], session_ttl = ARGV[11], longest = ARGV[12]})
end

local function end_as(reason, in_gotrue, new, old)
  redis.call('ZREM', place and place.set or KEYS[4], session) -- first: a full Redis allows it, and what follows
  bury(base_of(KEYS[3]), session, old, ending(reason, in_gotrue, tokens_until(new, now)), now)
  return redis.call('DEL', KEYS[1])
end

-- Whether the session's time was over when it was refreshed, whenever that is recorded.
local function is_over(old, new)
  local at = number(new.refreshed_at)
  if old then
    return is_expired(limits, old, at)
  end
  return has_passed(limits.absolute, number(new.created_at), at)
end

-- Why a session of whose beginning nobody told before has ended, and whether in GoTrue too, where an ending of all or of all but
-- one was sent when it had begun (`rules/late.rs`).
local function ended_by(noted, new)
  local sent_ms, reason, in_gotrue, spared = string.match(noted or '', '^(%d+):([%l_]+):([01]):?(.*)$')
  local by = number(new.began_ms or new.begun_by_ms)
  if sent_ms and spared ~= session and by > 0 and not is_later(by, number(sent_ms), in_gotrue) then
    return reason, in_gotrue
  end
end

-- The answer where the session has ended already: its tombstone outlives this token, too. Only its life changes, which a
-- full Redis allows.
local function ended_already(word, new)
  local seconds = math.min(number(new.expires_at) + number(ARGV[10]) - now, number(ARGV[12]))
  local left = redis.call('TTL', KEYS[2])
  if left >= 0 and left < seconds then
    redis.call('EXPIRE', KEYS[2], seconds)
  end
  return word == 'expired' and {word, 0} or word
end

-- Those beside whom the session is one more (`cap.lua`); nil where nobody counts.
local others

-- What became of the record, and of sessions that are too many now. With a refresh that tells nothing new of how many
-- there are nobody counts.
local function made(word)
  if not others or evicts == 0 or (origin ~= 'sign_in' and word ~= 'created') then
    return word
  end
  local ids, more = evict(others, evicts, ending('evicted', '0', 0))
  return #ids == 0 and word or {'evicted', word, more and 1 or 0, unpack(ids)}
end

local new = pairs_from(ARGV, FIELDS)
local buried = buried_as(KEYS[2])
if buried then
  return ended_already(buried, new)
end
local stored = redis.call('HGETALL', KEYS[1])
local old = pairs_from(stored, 1)
local known = #stored > 0
local marked = redis.call(
  'HMGET', KEYS[3], 'not_before', 'ending', 'decided_ms', 'seen_ms', 'seen_until', 'all_ended', 'others_ended'
)
redis.call('ZSCORE', KEYS[4], session) -- an index of another type fails here, before anything is written
chain = rules_of(KEYS[3], marked[2])
place = chain and place_of(chain, session)
if place then
  local ended
  ended, lowered = judged(chain, place, old)
  if ended then
    end_waiting(chain, place, old, ended, now)
    return ended_already(ended_as(ended.text), new)
  end
end
allow(ARGV[5], marked[3], marked[4], marked[5])
-- a refresh may have told of it before its sign-in does
local begins = not known or (origin == 'sign_in' and not old.began_ms)
for i = 6, begins and 7 or 0 do
  local reason, in_gotrue = ended_by(marked[i], new)
  if reason then
    end_as(reason, in_gotrue, new, old)
    return 'revoked'
  end
end
if number(marked[1]) > number((known and old or new).created_at) then
  return 'revoked'
end
if origin == 'refresh' and is_over(known and old, new) then
  return {'expired', end_as('expired', '0', new, old)}
end
if most > 0 then
  others = {base = base_of(KEYS[3]), not_before = marked[1], chain = chain, limits = limits, now = now,
    index = KEYS[4], but = session, most = most}
end
if not known then
  if others and evicts == 0 and is_full(others) then
    return 'denied'
  end
  create()
  return made('created')
end

-- From here on there is a record. What only that needs is defined here, since a definition costs Redis as much as
-- a command does, and most sign-ins need none of it.

local function supersedes(new, old)
  if new.counter and old.counter and new.counter ~= old.counter then
    return number(new.counter) > number(old.counter)
  end
  if number(new.refreshed_at) ~= number(old.refreshed_at) then
    return number(new.refreshed_at) > number(old.refreshed_at)
  end
  if number(new.expires_at) == 0 or number(old.expires_at) == 0 then
    return number(new.expires_at) > 0
  end
  if new.refresh_ref == old.refresh_ref and number(new.expires_at) ~= number(old.expires_at) then
    return number(new.expires_at) > number(old.expires_at)
  end
  if origin == 'sign_in' or (new.refresh_ref and new.refresh_ref == old.refresh_ref) then
    return false
  end
  if old.refresh_ref and old.refresh_ref == new.previous_ref then
    return true
  end
  if new.refresh_ref and new.refresh_ref == old.previous_ref then
    return false
  end
  if new.aal and old.aal and new.aal ~= old.aal then
    return new.aal > old.aal
  end
  return new.refresh_ref ~= old.refresh_ref
end

-- The earliest time by which two records say that a session had begun; nil where its beginning was seen.
local function begun_by(new, old)
  if old.began_ms then
    return nil
  end
  local one, other = new.begun_by_ms or old.begun_by_ms, old.begun_by_ms or new.begun_by_ms
  return number(one) < number(other) and one or other
end

-- The text of when the last access token of a record ends that is known (`known_until` in `rules/lives.rs`).
local function known_until(record)
  return number(record.earlier_until) > number(record.expires_at) and record.earlier_until or record.expires_at
end

local function merged(new, old)
  if not new.refresh_ref then
    new.refresh_ref, new.previous_ref, new.counter = old.refresh_ref, old.previous_ref, old.counter
  elseif new.refresh_ref == old.refresh_ref then
    new.previous_ref = old.previous_ref or new.previous_ref
    new.counter = new.counter or old.counter
  else
    new.previous_ref = new.previous_ref or old.refresh_ref
  end
  for _, name in ipairs({'client_id', 'factor_id', 'amr', 'ip', 'user_agent'}) do
    new[name] = new[name] or old[name]
  end
  if number(old.seen_at) > number(new.seen_at) then
    new.seen_at = old.seen_at
  end
  local earlier = known_until(number(known_until(old)) > number(known_until(new)) and old or new)
  new.earlier_until = number(earlier) > number(new.expires_at) and earlier or nil
  if old.began_ms or origin == 'refresh' then
    new.begun_by_ms = begun_by(new, old)
    new.created_at, new.began_ms = old.created_at or new.created_at, old.began_ms
  end
  return new
end

local OPTIONAL = {
  refresh_ref = true, previous_ref = true, counter = true, began_ms = true, begun_by_ms = true, seen_at = true,
  earlier_until = true, aal = true, factor_id = true, amr = true, role = true, client_id = true, ip = true, user_agent = true,
}

local function replace(record)
  redis.call('HSET', KEYS[1], unpack(flat(record)))
  for i = 1, #stored, 2 do
    local name = stored[i]
    if OPTIONAL[name] and not record[name] then
      redis.call('HDEL', KEYS[1], name)
    end
  end
  extend(KEYS[1], ttl)
  enter()
end

if supersedes(new, old) then
  replace(merged(new, old))
  return made('refreshed')
end

-- Where the stored one stands, the other may still tell of a token that is good for longer, and more of the beginning.
if number(known_until(new)) > number(known_until(old)) then
  redis.call('HSET', KEYS[1], 'earlier_until', known_until(new))
end

local function add_beginning()
  local by = begun_by(new, old)
  if origin == 'refresh' and by and by ~= old.begun_by_ms then
    redis.call('HSET', KEYS[1], 'begun_by_ms', by)
    return true
  end
  if origin == 'refresh' or not new.began_ms or old.began_ms then
    return false
  end
  -- A refresh was recorded before the sign-in: only now is it known when the session began.
  redis.call('HSET', KEYS[1], 'created_at', new.created_at, 'began_ms', new.began_ms)
  redis.call('HDEL', KEYS[1], 'begun_by_ms')
  if new.client_id and not old.client_id then
    redis.call('HSET', KEYS[1], 'client_id', new.client_id)
  end
  if new.refresh_ref and not old.refresh_ref then
    -- A token that somebody used told of the session, and not of its refresh token.
    redis.call('HSET', KEYS[1], 'refresh_ref', new.refresh_ref)
    if new.counter then
      redis.call('HSET', KEYS[1], 'counter', new.counter)
    end
  end
  return true
end

if add_beginning() and place then
  -- The changes that it waited for were judged by what was known of it.
  if lowered then
    lower(KEYS[1])
  end
  bring_back(chain, place, now)
end
return made('unchanged')
