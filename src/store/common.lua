-- What stands before every script: what changes to many sessions mean while they wait.
--
-- A change to many sessions of a user (an ending, or the fall of a level) is a rule. For few sessions it is
-- carried out at once. For more than a step of them the index is renamed to `ending:<n>`, and the rule goes into the
-- marks: field `ending` is 'first:last', field `ending:<n>` the rule as JSON. That costs the same for any number.
-- From then on a member of `ending:<n>` is what rules n to last make of its record, in this order. Whoever
-- asks (`lookup.lua`, `survey.lua`, `resolve.lua`) works that out and writes nothing; whoever changes one session (`record.lua`,
-- `amend.lua`, `end.lua`) carries it out for that one first; `sweep.lua` does so for a step of them at a time. Survivors go back to
-- the index. Sessions that begin meanwhile stand in a new index, which the next rule would rename in its turn.

local RULES = 16 -- that may wait; one more, and the oldest is carried out to its end first

local function number(text)
  return tonumber(text or '') or 0
end

local function pairs_from(list, first)
  local fields = {}
  for i = first, #list, 2 do
    fields[list[i]] = list[i + 1]
  end
  return fields
end

-- A record as name, value, …
local function flat(record)
  local list = {}
  for name, value in pairs(record) do
    list[#list + 1] = name
    list[#list + 1] = value
  end
  return list
end

-- What HMGET gave for these names.
local function named(names, values)
  local record = {}
  for i, name in ipairs(names) do
    record[name] = values[i] or nil
  end
  return record
end

-- Fields of a record; none where a key of another type is in its place. One that lies on another node is an error.
local function fields_of(key, names)
  local values = redis.pcall('HMGET', key, unpack(names))
  if values.err and not string.find(values.err, 'WRONGTYPE', 1, true) then
    error(values.err)
  end
  return named(names, values)
end

local function is_id(text)
  return #text == 36 and text:find('^[%x-]+$') ~= nil
end

-- The word for a session that ended for this: how a tombstone's text begins, or a rule's.
local function ended_as(text)
  return text:find('^expired:') and 'expired' or 'revoked'
end

-- What its tombstone says of a session: 'expired' or 'revoked'; nil where there is none.
local function buried_as(tombstone)
  local text = redis.pcall('GET', tombstone)
  return text and ended_as(type(text) == 'string' and text or '')
end

-- Limits of sessions, as they stand in arguments from `first` on: `session.idle_timeout`, `session.absolute_timeout`
-- (seconds; 0: none), and since when it can be known that a session was used.
local function limits_from(list, first)
  return {idle = number(list[first]), absolute = number(list[first + 1]), noted_since = number(list[first + 2])}
end

local function has_passed(limit, since, at)
  return limit > 0 and at - since >= limit
end

-- Whether a session's time is over (`rules/limits.rs` is the same and says why).
local function is_expired(limits, record, at)
  local began = number(record.created_at)
  local used = math.max(began, number(record.refreshed_at), number(record.seen_at), limits.noted_since)
  return has_passed(limits.absolute, began, at) or has_passed(limits.idle, used, at)
end

-- What all keys of a user begin with.
local function base_of(marks)
  return marks:sub(1, -#':marks' - 1)
end

-- The rule, whose numbers were texts.
local function with_numbers(rule)
  for _, name in ipairs({'at', 'sent_ms', 'expires_at', 'shortest', 'skew', 'session_ttl', 'longest'}) do
    rule[name] = number(rule[name])
  end
  return rule
end

-- A rule as JSON of texts, or nil if it is none.
local function rule_from(json)
  local reads, rule = pcall(cjson.decode, json or '')
  if not reads or type(rule) ~= 'table' or type(rule.text) ~= 'string' then
    return nil
  end
  rule.in_gotrue = rule.in_gotrue == '1' and '1' or '0'
  return with_numbers(rule)
end

-- The rules that are not carried out yet; nil if there are none. `noted` is the field `ending`.
local function rules_of(marks, noted)
  local first, last = string.match(noted or '', '^(%d+):(%d+)$')
  first, last = number(first), number(last)
  if first < 1 or last < first or last - first >= RULES then
    return nil
  end
  local fields = pairs_from(redis.call('HGETALL', marks), 1)
  local chain = {base = base_of(marks), marks = marks, first = first, last = last}
  for n = first, last do
    chain[n] = rule_from(fields['ending:' .. n])
  end
  return chain
end

local function set_of(chain, n)
  return chain.base .. ':ending:' .. n
end

-- Where a session waits for rules: {set, number of the first rule, id, score}; nil if it does not.
local function place_of(chain, id)
  for n = chain.first, chain.last do
    local score = redis.call('ZSCORE', set_of(chain, n), id)
    if score then
      return {set = set_of(chain, n), from = n, id = id, score = number(score)}
    end
  end
end

local function is_meant(rule, id, record)
  if rule.which == 'all' then
    return true
  elseif rule.which == 'client' then
    return record.client_id == rule.subject
  elseif rule.which == 'others' or rule.which == 'aal1_except' then
    return id ~= rule.subject and (rule.which == 'others' or record.aal == 'aal1')
  end
  return false
end

-- Whether a session began after an ending was sent (`is_later` in `store/rules.rs` says why).
local function is_later(began_ms, sent_ms, in_gotrue)
  return began_ms > sent_ms or (began_ms == sent_ms and in_gotrue == '1')
end

-- The same of a change to many (`outlives` in `store/rules.rs`).
local function began_after(rule, record)
  if number(record.began_ms) > 0 then
    return is_later(number(record.began_ms), rule.sent_ms, rule.in_gotrue)
  end
  local since = number(record.created_at) - math.floor(rule.sent_ms / 1000)
  return since > 0 or (since == 0 and rule.in_gotrue == '1' and number(record.begun_by_ms) >= rule.sent_ms)
end

-- The rule that ends the session, if one does; else whether its level falls, as `record` says from then on. A
-- record that has vanished before its time counts as far as its id tells.
local function judged(chain, place, record)
  local lowered = false
  for n = place.from, chain.last do
    local rule = chain[n]
    if rule and rule.which == 'lower' then
      if record.factor_id == rule.subject then
        record.factor_id, record.aal, lowered = nil, 'aal1', true
      end
    elseif rule and place.score > rule.at and not began_after(rule, record) then
      if is_meant(rule, place.id, record) then
        return rule
      end
    end
  end
  return nil, lowered
end

local TIMES = {created_at = true, refreshed_at = true, seen_at = true}

-- What is known of a session, but for a ban: `state` ('revoked', 'expired', 'live' or 'unknown'), its `fields` as name, value, … as
-- the rules that it waits for leave them, where it waits (`place`), and what the marks say. `began`: when it began, in
-- case there is no record that says so (`began_before` in `store/rules.rs` is the same). `limits`: those by which it may
-- be over at `now`, if any.
local function known_of(record, tombstone, marks, began, limits, now)
  local it = {state = buried_as(tombstone), fields = {}}
  if it.state then
    return it
  end
  it.state = 'revoked'
  local noted
  it.not_before, it.suspended_until, noted = unpack(redis.call('HMGET', marks, 'not_before', 'suspended_until', 'ending'))
  local stored = redis.call('HGETALL', record)
  local times = {}
  for i = 1, #stored, 2 do
    if TIMES[stored[i]] then
      times[stored[i]] = stored[i + 1]
    end
  end
  it.seen_at = times.seen_at
  if #stored > 0 then
    began = number(times.created_at)
  end
  if began and number(it.not_before) > began then
    return it
  end
  local chain = rules_of(marks, noted)
  it.place = chain and place_of(chain, record:sub(-36))
  if it.place then
    local left = pairs_from(stored, 1)
    local ended, lowered = judged(chain, it.place, left)
    if ended then
      it.state = ended_as(ended.text)
      return it
    elseif lowered then
      stored = flat(left)
    end
  end
  local over = limits and #stored == 0 and began and has_passed(limits.absolute, began, now)
  if over or limits and times.created_at and is_expired(limits, times, now) then
    it.state = 'expired'
    return it
  end
  it.state, it.fields = #stored > 0 and 'live' or 'unknown', stored
  return it
end
