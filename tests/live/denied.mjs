// The official client where its user has as many sessions as may be: supabase-js signs up on the phone, and in on
// the laptop, which is denied.
//
//   node denied.mjs URL     URL is where GoTrue's paths begin, e.g. http://127.0.0.1:9999
//
// Prints as JSON what supabase-js made of it on either device.

import { email, newDevice, password } from "./someone.mjs";

function newClient() {
  const events = [];
  const client = newDevice();
  client.onAuthStateChange((event) => void events.push(event));
  return { client, events };
}

const phone = newClient();
const laptop = newClient();
await phone.client.signUp({ email, password });
const denied = await laptop.client.signInWithPassword({ email, password });
const refreshed = await phone.client.refreshSession();
// Somebody who is signed in, and tries once more on the same device.
const again = await phone.client.signInWithPassword({ email, password });
const { data: kept } = await phone.client.getSession();
const { data: user } = await phone.client.getUser();
const { error: signedOut } = await phone.client.signOut({ scope: "local" });
const then = await laptop.client.signInWithPassword({ email, password });

const told = ({ error }) => error && { name: error.name, code: error.code, status: error.status };
const report = {
  denied: { ...told(denied), session: denied.data.session },
  refreshed: refreshed.error === null,
  again: told(again),
  keptSession: kept.session?.access_token === refreshed.data.session?.access_token,
  keptUser: user.user?.email === email,
  signedOut: signedOut === null,
  phoneSawSignedOut: phone.events.filter((event) => event === "SIGNED_OUT").length,
  laptopSawSignedOut: laptop.events.filter((event) => event === "SIGNED_OUT").length,
  then: then.data.session !== null,
};
console.log(JSON.stringify(report));
