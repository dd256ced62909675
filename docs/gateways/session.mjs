// For Express, and whatever else calls middleware with (req, res, next): asks gotrue-sidecar about each request, and
// lets it pass only with a live session. Node 18 or later, and nothing else.
//
//   app.use(requireSession)
//   app.get('/', (req, res) => res.json({ user: req.auth.user }))

const check = process.env.SESSION_CHECK ?? 'http://auth:9464/check'

export async function requireSession(req, res, next) {
  const answer = await ask(req.headers.authorization)
  if (answer?.status === 200) {
    const said = (name) => answer.headers.get(`x-auth-${name}`) || undefined
    // From the check's answer: the request's own X-Auth-* headers are whatever its sender liked to write.
    req.auth = {
      user: said('user'),
      session: said('session'),
      role: said('role'),
      email: said('email'),
      aal: said('aal'),
      expires: Number(said('expires')),
    }
    return next()
  }
  // 401 and 403 are answers about the session. Anything else, or none at all, is an outage, and never a yes.
  const known = answer?.status === 401 || answer?.status === 403
  res.statusCode = known ? answer.status : 503
  if (answer?.status === 401) res.setHeader('WWW-Authenticate', answer.headers.get('www-authenticate') ?? 'Bearer')
  if (!known) res.setHeader('Retry-After', '1')
  res.end()
}

async function ask(authorization) {
  try {
    const answer = await fetch(check, {
      headers: authorization === undefined ? {} : { authorization },
      redirect: 'manual',
      // More than the sidecar's check.timeout (100 ms), which answers 503 by then.
      signal: AbortSignal.timeout(500),
    })
    await answer.arrayBuffer() // so that the connection is used again
    return answer
  } catch {
    return undefined
  }
}
