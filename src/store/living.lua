-- What stands before scripts that look through the sessions of a user, after `common.lua`.

-- What decides whether a session is live, where it stands in order, and what rules make of it.
local LOOKED_AT = {
  'created_at', 'began_ms', 'begun_by_ms', 'refreshed_at', 'seen_at', 'expires_at', 'aal', 'factor_id', 'client_id',
  'earlier_until',
}

-- A session in short, if it is live. `of`: what holds for all of its user: `base`, `not_before`, `chain`, `limits`, `now`.
-- `place` is where it waits, if it does. Where it is not live, also whether nothing is left of it.
local function if_live(of, id, place)
  if not is_id(id) or redis.call('EXISTS', of.base .. ':revoked:' .. id) == 1 then
    return nil, true
  end
  local record = fields_of(of.base .. ':session:' .. id, LOOKED_AT)
  if not record.created_at then
    return nil, true
  elseif number(record.created_at) < number(of.not_before) or is_expired(of.limits, record, of.now) then
    return nil, false
  end
  local session = {id = id, created = number(record.created_at), began = number(record.began_ms), record = record,
    place = place}
  if place then
    local ended
    ended, session.lowered = judged(of.chain, place, record)
    if ended then
      return nil, false
    end
  end
  return session
end

-- By `created_at`, within a second by `began_ms`, else by id.
local function newest_first(one, other)
  if one.created ~= other.created then
    return one.created > other.created
  elseif one.began ~= other.began then
    return one.began > other.began
  end
  return one.id > other.id
end
