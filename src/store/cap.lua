-- What stands before `record.lua`, after `carry_out.lua`: how many sessions a user may have (`session.max_per_user`).
--
-- Live ones count, in the index and where they wait for a change to many. All of them are looked at, unless there are
-- very many: then those that were refreshed last, which leaves out the dead, mostly. Where those that are left out live,
-- it is their turn when the oldest of the others have gone.

local BEYOND = 256 -- that are looked at besides as many as there may be

local function later_than(now)
  return '(' .. now
end

-- How many there are, dead ones among them.
local function count_of(of, index)
  local count = redis.call('ZCOUNT', index, later_than(of.now), '+inf')
  if of.chain then
    for n = of.chain.first, of.chain.last do
      count = count + redis.call('ZCOUNT', set_of(of.chain, n), later_than(of.now), '+inf')
    end
  end
  return count
end

-- Adds those of a set that live, but for one, until there are enough; says how many it looked at. `n`: the first rule
-- that they wait for, if they do.
local function add_live(live, of, set, n, but, most, enough)
  local members = redis.call('ZREVRANGE', set, 0, most - 1, 'WITHSCORES')
  for i = 1, #members, 2 do
    local id, score = members[i], number(members[i + 1])
    if score <= of.now or #live >= enough then
      break
    elseif id ~= but then
      live[#live + 1] = if_live(of, id, n and {set = set, from = n, id = id, score = score})
    end
  end
  return #members / 2
end

-- The user's live sessions but this one, in no order: not more than `enough`, nor than can be looked at.
local function others(of, index, session, most, enough)
  local live = {}
  local left = most + BEYOND
  left = left - add_live(live, of, index, nil, session, left, enough)
  if of.chain then
    for n = of.chain.first, of.chain.last do
      if left > 0 then
        left = left - add_live(live, of, set_of(of.chain, n), n, session, left, enough)
      end
    end
  end
  return live
end

-- Whether the user has as many as there may be, without this one.
local function is_full(of, index, session, most)
  return count_of(of, index) >= most and #others(of, index, session, most, most) >= most
end

-- Ends the oldest of those that are too many beside this one, at most so many; `rule` says how. Returns their ids, and
-- whether there may be still more.
local function evict(of, index, session, most, at_once, rule)
  local count = count_of(of, index)
  if count <= most then
    return {}, false
  end
  local live = others(of, index, session, most, count)
  table.sort(live, newest_first)
  local surplus = #live + 1 - most
  local evicted = {}
  for i = #live, #live - math.min(surplus, at_once) + 1, -1 do
    local one = live[i]
    redis.call('ZREM', one.place and one.place.set or index, one.id)
    bury(of.base, one.id, one.expires_at, rule, of.now)
    redis.call('DEL', of.base .. ':session:' .. one.id)
    evicted[#evicted + 1] = one.id
  end
  return evicted, #evicted > 0 and (surplus > #evicted or count > most + BEYOND)
end
