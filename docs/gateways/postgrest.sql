-- For PostgREST: PGRST_DB_PRE_REQUEST=check_session calls this before each request.
--
-- PostgREST verifies tokens by itself; what it cannot know is that a session was revoked, and that is the gateway's
-- check. This function refuses what did not come through it: a route of the gateway without the check, say. It is no
-- defence against whoever reaches PostgREST directly, and can write X-Auth-Session like any other header.

create or replace function check_session() returns void
	language plpgsql stable
as $$
declare
	claims json := nullif(current_setting('request.jwt.claims', true), '')::json;
	headers json := nullif(current_setting('request.headers', true), '')::json;
begin
	-- Equal where there is a session, and both absent where there is none: without a token, or with an anonymous or
	-- a service key.
	if nullif(claims ->> 'session_id', '') is distinct from nullif(headers ->> 'x-auth-session', '') then
		raise sqlstate 'PT401' using message = 'the session was not checked';
	end if;
end
$$;
