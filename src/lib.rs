//! gotrue-sidecar: a reverse proxy beside GoTrue that mirrors its sessions into a store.
//!
//! A request passes, in order: `listener` (accepts, TLS, one HTTP connection) → `proxy` (one
//! request: classify, look up, forward, mirror, log) → `upstream` (GoTrue) → `mirror` (what the
//! answer means for sessions) → `store` (makes it so). `app` is the only file that knows every
//! part. Dependencies point down this list and never back; `tests/it/layering.rs` holds them to it.

pub mod access;
pub mod admin;
pub mod app;
pub mod audit;
pub mod body;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod exchange;
pub mod headers;
pub mod jwks;
pub mod keys;
pub mod listener;
pub mod metrics;
pub mod mirror;
pub mod probe;
pub mod proxy;
pub mod readiness;
pub mod reload;
pub mod request_id;
pub mod rfc3339;
pub mod route;
pub mod scope;
pub mod session;
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
