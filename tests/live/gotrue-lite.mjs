// The live upstream of the demo and of the tests: npm's @supabase/lite answering as GoTrue does, at path "/".
//
// It is somebody else's server, and deliberately not "repaired" where it differs from GoTrue: an upstream
// made to agree with the sidecar would prove nothing. tests/it/support/gotrue.rs lists the differences.
//
// Settings carry GoTrue's own names:
//   GOTRUE_JWT_SECRET          required
//   GOTRUE_JWT_EXP             life of an access token in seconds (3600)
//   GOTRUE_API_HOST, PORT      where to listen (127.0.0.1, 9999; port 0 takes a free one)
//   GOTRUE_SITE_URL, GOTRUE_URI_ALLOW_LIST, GOTRUE_MAILER_AUTOCONFIRM
//   LITE_AUTH_BCRYPT_COST      4 makes password hashing cheap (10)
//   DATABASE_URL               an empty PostgreSQL database for users and sessions
// Without that they live in memory and end with the process. Node >= 22.13 (node:sqlite).
//
// Two paths belong to this script, for tests that ask the upstream itself, never through the sidecar:
//   GET /_test/sessions        the rows of auth.sessions, with their users' addresses
//   GET /_test/mails           what would have been sent: [{to, subject, text, html}]
//
// Prints "listening on URL" once it serves. Ends at SIGINT, at SIGTERM, and at the end of its standard
// input when that is a pipe, so that it cannot outlive a test that was killed.

import { createServer } from "node:http";
import { fstatSync } from "node:fs";
import { getRequestListener } from "@hono/node-server";
import { App } from "@supabase/lite";
import { createPostgresConnection } from "@supabase/lite/postgres";
import { createConnection } from "@supabase/lite/sqlite";

const { env } = process;
if (!env.GOTRUE_JWT_SECRET) {
  console.error("gotrue-lite: GOTRUE_JWT_SECRET is not set");
  process.exit(1);
}
const host = env.GOTRUE_API_HOST ?? "127.0.0.1";
const port = Number(env.PORT ?? 9999);
const siteUrl = env.GOTRUE_SITE_URL ?? "http://localhost:3000";

const mails = [];
const connection = env.DATABASE_URL
  ? createPostgresConnection({ url: env.DATABASE_URL, postgresOptions: { onnotice: () => {} } })
  : await createConnection({ url: ":memory:" });
const app = new App({
  connection,
  auth: {
    enabled: true,
    enable_signup: true,
    jwt_secret: env.GOTRUE_JWT_SECRET,
    jwt_expiry: Number(env.GOTRUE_JWT_EXP ?? 3600),
    site_url: siteUrl,
    additional_redirect_urls: (env.GOTRUE_URI_ALLOW_LIST ?? `${siteUrl}/**`).split(","),
    enable_refresh_token_rotation: true,
    email: { enable_confirmations: env.GOTRUE_MAILER_AUTOCONFIRM === "false" },
  },
  options: {
    server: { apiKeys: false, disableStudio: true },
    drivers: { email: { send: async (mail) => void mails.push(mail) } },
  },
});
await app.ensureSystemSchema();

const sessions = () =>
  connection.kysely
    .withSchema("auth")
    .selectFrom("sessions")
    .innerJoin("users", "users.id", "sessions.user_id")
    .selectAll("sessions")
    .select("users.email")
    .execute();
const ownPaths = { "/_test/sessions": sessions, "/_test/mails": () => mails };

const answer = getRequestListener((request) => app.fetch(request, { peerAddress: null }));
const server = createServer(async (request, response) => {
  const own = ownPaths[request.url];
  if (own) {
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(await own()));
    return;
  }
  request.url = `/auth/v1${request.url}`;
  answer(request, response);
});
server.listen(port, host, () => console.log(`listening on http://${host}:${server.address().port}`));

function stop() {
  server.close(async () => {
    await connection.close();
    process.exit(0);
  });
  server.closeAllConnections();
}
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, stop);
if (fstatSync(0).isFIFO() || fstatSync(0).isSocket()) process.stdin.on("end", stop).resume();
