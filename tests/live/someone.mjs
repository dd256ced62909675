// Whom the official client acts for, and where: what the scripts beside this one share. Each is run as
//
//   node SCRIPT URL     URL is where GoTrue's paths begin, e.g. http://127.0.0.1:9999

import { basename } from "node:path";

import { AuthClient } from "@supabase/supabase-js";

export const url = process.argv[2]?.replace(/\/$/, "");
if (!url) {
  console.error(`usage: node ${basename(process.argv[1])} URL`);
  process.exit(2);
}

export const email = `someone-${process.pid}-${Date.now()}@example.com`;
export const password = "correct horse battery staple";

// A device of its own: it keeps its session in memory and refreshes nothing by itself.
export function newDevice(options) {
  const kept = new Map();
  return new AuthClient({
    url,
    autoRefreshToken: false,
    persistSession: true,
    storage: {
      getItem: (key) => kept.get(key) ?? null,
      setItem: (key, value) => void kept.set(key, value),
      removeItem: (key) => void kept.delete(key),
    },
    ...options,
  });
}
