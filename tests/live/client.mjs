// The official client's day with an auth server: supabase-js signs up, in, refreshes, gets its user, signs out.
//
//   node client.mjs URL     URL is where GoTrue's paths begin, e.g. http://127.0.0.1:9999
//
// Prints what it saw as JSON: for each step what supabase-js returned, and every answer on the wire
// (status, headers, body). What differs from run to run is replaced by a placeholder that says which of
// its kind it is ("<uuid 2>", "<jwt 1>"), so that two runs against equal servers print the same text, and
// an id that stands in a header, a token and a body at once shows as the same id in all three.

import { email, newDevice, password, url } from "./someone.mjs";

// ---------------------------------------------------------------- placeholders

const seen = new Map();
function placeholder(kind, value) {
  const values = seen.get(kind) ?? seen.set(kind, []).get(kind);
  if (!values.includes(value)) values.push(value);
  return `<${kind} ${values.indexOf(value) + 1}>`;
}

const JWT = /\beyJ[\w-]+\.[\w-]+\.[\w-]*/g;
const UUID = /\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/g;
const TIME = /\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)?/g;

function plainText(text) {
  return text
    .replaceAll(url, "<url>")
    .replaceAll(email, "<email>")
    .replace(JWT, (token) => placeholder("jwt", token))
    .replace(UUID, (id) => placeholder("uuid", id))
    .replace(TIME, "<time>");
}

// A token's claims matter, its signature does not.
function claimsOf(token) {
  return plain(JSON.parse(Buffer.from(token.split(".")[1], "base64url").toString()));
}

const secondsOf = new Set(["expires_at", "exp", "iat", "timestamp"]);
function plain(value, key) {
  if (secondsOf.has(key)) return "<seconds>";
  if (key === "refresh_token") return placeholder("refresh token", value);
  if (key === "access_token") return { token: plainText(value), claims: claimsOf(value) };
  if (typeof value === "string") return plainText(value);
  if (value instanceof Uint8Array) return "<bytes>";
  if (Array.isArray(value)) return value.map((item) => plain(item));
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, plain(inner, name)]));
  }
  return value;
}

// ---------------------------------------------------------------- the wire

// They belong to one connection, not to the answer.
const HOP_BY_HOP = new Set(["connection", "keep-alive", "transfer-encoding"]);
// Times and lengths of times: only that they are there can be compared.
const VARYING = new Set(["content-length", "date"]);

function plainHeaders(headers) {
  const kept = [...headers].filter(([name]) => !HOP_BY_HOP.has(name));
  return Object.fromEntries(kept.map(([name, value]) => [name, plainHeader(name, value)]));
}

function plainHeader(name, value) {
  if (VARYING.has(name)) return "<varies>";
  // Only its form is told: it may be the head of a time, equal for all tokens of one minute.
  if (name === "sb-auth-refresh-token-prefix") return `<${value.length} characters>`;
  return plainText(value);
}

let answers = [];
async function recordingFetch(input, init) {
  const response = await fetch(input, init);
  const text = await response.clone().text();
  answers.push({
    request: `${init?.method ?? "GET"} ${plainText(String(input))}`,
    status: response.status,
    headers: plainHeaders(response.headers),
    body: parsed(text),
  });
  return response;
}

function parsed(text) {
  try {
    return plain(JSON.parse(text));
  } catch {
    return plainText(text);
  }
}

// ---------------------------------------------------------------- the day

const newClient = () => newDevice({ fetch: recordingFetch });

const transcript = [];
async function step(name, call) {
  answers = [];
  const { data, error } = await call();
  transcript.push({
    step: name,
    data: plain(data ?? null),
    error: error ? plain({ name: error.name, code: error.code, status: error.status, message: error.message }) : null,
    answers,
  });
  return data;
}

const phone = newClient();
const laptop = newClient();

await step("sign up on the phone", () => phone.signUp({ email, password, options: { data: { name: "Someone" } } }));
await step("sign up again", () => newClient().signUp({ email, password }));
await step("sign in with a wrong password", () => laptop.signInWithPassword({ email, password: "wrong" }));
const { session } = await step("sign in on the laptop", () => laptop.signInWithPassword({ email, password }));
await step("get the user", () => laptop.getUser());
await step("get the claims", () => laptop.getClaims());
// Within one second the new access token would be the old one, byte for byte.
await new Promise((resume) => setTimeout(resume, 1100));
await step("refresh", () => laptop.refreshSession());
await step("refresh with an unknown token", () => newClient().refreshSession({ refresh_token: "aaaaaaaaaaaa" }));
await step("change the user's data", () => laptop.updateUser({ data: { name: "Someone Else" } }));
await step("sign out the others", () => laptop.signOut({ scope: "others" }));
await step("get the user on the phone, signed out", () => phone.getUser());
await step("sign in on the phone", () => phone.signInWithPassword({ email, password }));
await step("sign out on the phone only", () => phone.signOut({ scope: "local" }));
await step("get the user on the laptop, still signed in", () => laptop.getUser());
await step("sign out everywhere", () => laptop.signOut({ scope: "global" }));
await step("get the user with a token from before", () => newClient().getUser(session.access_token));
await step("refresh with a token from before", () => newClient().refreshSession(session));

console.log(JSON.stringify(transcript, null, 2));
