-- What stands before `record.lua`, after `carry_out.lua` and `living.lua`, where it is counted how many sessions a user
-- has (`session.max_per_user`).
--
-- Live ones count, in the index and where they wait for a change to many. All of them are looked at, unless there are
-- very many: then those that were refreshed last, which leaves out the dead, mostly. Where those that are left out live,
-- it is their turn when the oldest of the others have gone.
--
-- `of` is as `if_live` has it, with the user's `index`, the session that does not count (`but`), and how `most` there
-- may be.

local BEYOND = 256 -- that are looked at besides as many as there may be

-- How many there are, dead ones among them.
local function count_of(of)
  local count = redis.call('ZCOUNT', of.index, '(' .. of.now, '+inf')
  if of.chain then
    for n = of.chain.first, of.chain.last do
      count = count + redis.call('ZCOUNT', set_of(of.chain, n), '(' .. of.now, '+inf')
    end
  end
  return count
end

-- Adds those of a set that live, until there are enough, and looks at no more than `left`; says how many it may still look
-- at then. `n`: the first rule that they wait for, if they do.
local function add_live(live, of, set, n, left, enough)
  local members = redis.call('ZREVRANGE', set, 0, left - 1, 'WITHSCORES')
  for i = 1, #members, 2 do
    local id, score = members[i], number(members[i + 1])
    if score <= of.now or #live >= enough then
      break
    elseif id ~= of.but then
      live[#live + 1] = if_live(of, id, n and {set = set, from = n, id = id, score = score})
    end
  end
  return left - #members / 2
end

-- The user's live sessions, in no order: not more than `enough`, nor than can be looked at.
local function living(of, enough)
  local live = {}
  local left = add_live(live, of, of.index, nil, of.most + BEYOND, enough)
  if of.chain then
    for n = of.chain.first, of.chain.last do
      left = left > 0 and add_live(live, of, set_of(of.chain, n), n, left, enough) or 0
    end
  end
  return live
end

-- Whether there are as many as there may be.
local function is_full(of)
  return count_of(of) >= of.most and #living(of, of.most) >= of.most
end

-- Ends the oldest of those that are one too many or more beside the one that does not count, at most so many; `rule` says
-- how. Returns their ids, and whether there may be still more.
local function evict(of, at_once, rule)
  local count = count_of(of)
  if count <= of.most then
    return {}, false
  end
  local live = living(of, count)
  table.sort(live, newest_first)
  local surplus = #live + 1 - of.most
  local evicted = {}
  for i = #live, #live - math.min(surplus, at_once) + 1, -1 do
    local one = live[i]
    redis.call('ZREM', one.place and one.place.set or of.index, one.id)
    bury(of.base, one.id, one.record, rule, of.now)
    redis.call('DEL', of.base .. ':session:' .. one.id)
    evicted[#evicted + 1] = one.id
  end
  return evicted, #evicted > 0 and (surplus > #evicted or count > of.most + BEYOND)
end
