-- The action lua.check: asks gotrue-sidecar about a request, at the URL that haproxy.cfg gives.

local url = assert(os.getenv("CHECK_URL"), "CHECK_URL is not set")

local identity = {
	"x-auth-user", "x-auth-session", "x-auth-role", "x-auth-email", "x-auth-aal", "x-auth-expires",
}

-- All values of a header of the request: HAProxy counts them from 0, and two must be seen as two, and refused.
local function values(headers, name)
	local found = {}
	local given = headers[name]
	local at = 0
	while given and given[at] do
		found[#found + 1] = given[at]
		at = at + 1
	end
	return found
end

core.register_action("check", { "http-req" }, function(txn)
	local credential = values(txn.http:req_get_headers(), "authorization")
	local answer = core.httpclient():get{
		url = url,
		headers = { ["authorization"] = credential },
		timeout = 1000,
	}

	if answer.status == 200 then
		for _, name in ipairs(identity) do
			local value = answer.headers[name]
			txn.http:req_set_header(name, value and value[0] or "")
		end
	else
		local challenge = answer.headers and answer.headers["www-authenticate"]
		txn:set_var("txn.authenticate", challenge and challenge[0] or "Bearer")
		txn:set_var("txn.body", answer.body or "")
	end
	txn:set_var("txn.check", answer.status)
end, 0)
