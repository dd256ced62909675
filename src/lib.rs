//! gotrue-sidecar: a reverse proxy beside GoTrue that mirrors its sessions into a store.
//!
//! # A request in five hops
//!
//! 1. [`listener`] accepts the connection, on one of the [`worker`] threads; TLS ([`tls`]), framing and
//!    pace ([`wire`]) are judged on the bytes, before hyper reads them.
//! 2. [`proxy`] takes the request: its [`route`] from the head alone, an account of it ([`exchange`]), the
//!    caller's token ([`keys`], [`jwks`]) and session looked up ([`sessions`]). What is for the [`session_api`] is
//!    answered there and goes no further. What can change no session is streamed; the rest runs in a task of its
//!    own (`proxy/mirrored.rs`), so that it is finished whoever leaves.
//! 3. [`upstream`] sends it to GoTrue, once, over a small pool of connections; the answer comes back as
//!    a [`body`], streamed or, where a decision needs it, held.
//! 4. [`mirror`] decides what that answer means for sessions: pure functions from request and answer
//!    to changes ([`session::Change`]).
//! 5. [`store`] makes the changes, atomically and within [`sessions::Budget`]; then the answer goes out
//!    exactly as it came. What the sidecar answers itself is made in [`error`], and nowhere else.
//!
//! A gateway's question whether a token is still good takes another way: [`listener`], [`admin`], [`check`].
//!
//! # Where state lives
//!
//! | state | where | shared by |
//! |---|---|---|
//! | sessions, tombstones, marks | [`store`]: Redis, or [`store::memory`] | every replica, or this process |
//! | connections to GoTrue | [`upstream::Upstream`] | one worker |
//! | connections to Redis, its master or its slots | [`store::Store`], made by [`store::Source`] | one worker |
//! | address, password and certificates for Redis | [`store::Source`] | this process, replaced as a whole |
//! | changes that wait for the store | [`replay::Queue`] | this process |
//! | whether the store is worth asking | [`breaker::Breaker`] | this process |
//! | clients' connections | [`listener::Connections`], each with its [`wire::pace::Pace`] | one worker |
//! | one request | [`exchange::Exchange`], until its answer has ended | nobody |
//! | tokens that were verified, by hash | [`jwks::Judge`] and [`check::Check`], until they expire | one worker |
//! | what checks were told of sessions | [`check::Check`], for a second at most | one worker |
//! | that sessions changed | [`store::changes::Changes`] | this process |
//! | keys that verify tokens | [`jwks::Verifier`] | this process, replaced as a whole |
//! | what is well, how far it has drained | [`readiness::Readiness`], [`shutdown::Drain`] | this process |
//! | counters | [`metrics::Metrics`] | this process |
//!
//! [`app`] is the only module that knows every part: it builds them from [`config`], runs them and takes
//! them down. Dependencies point one way, in the order that `tests/it/layering.rs` lists and holds.

pub mod access;
pub mod admin;
pub mod app;
pub mod audit;
pub mod body;
pub mod breaker;
pub mod cache;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod drift;
pub mod error;
pub mod exchange;
pub mod headers;
pub mod jwks;
pub mod keys;
pub mod listener;
pub mod metrics;
pub mod mirror;
pub mod operator;
pub mod probe;
pub mod proxy;
pub mod readiness;
pub mod reload;
pub mod replay;
pub mod request_id;
pub mod rfc3339;
pub mod route;
pub mod scope;
pub mod session;
pub mod session_api;
pub mod sessions;
pub mod shutdown;
pub mod store;
pub mod target;
pub mod telemetry;
pub mod tls;
pub mod token;
pub mod upstream;
pub mod wire;
pub mod worker;
