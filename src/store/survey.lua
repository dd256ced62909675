-- What the audit compares of one session. Writes nothing.
--
-- KEYS: record, tombstone, marks, index
-- ARGV: session id
-- Returns 'revoked', 'expired', 'live' or 'unknown', whoever is banned, and whatever limits there are; the user's `not_before` or 0; 1 if an ending of all finds
-- the session, in the index or where it waits for a change to many, else 0; then its fields as name, value, …

local it = known_of(KEYS[1], KEYS[2], KEYS[3])
local score = redis.pcall('ZSCORE', KEYS[4], ARGV[1]) -- an index of another type holds nothing
local found = it.place or type(score) == 'string'
return {it.state, it.not_before or '0', found and 1 or 0, unpack(it.fields)}
