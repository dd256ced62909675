//! Everything that is tested from the outside, in one binary.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy.toml knows that of test functions, not of what they share"
)]
#![expect(clippy::print_stdout, reason = "tables and times, shown with --nocapture")]

mod admin;
mod bad_input;
mod config;
mod decisions;
mod docs;
mod drain;
mod drift;
mod encoding;
mod faults;
mod framing;
mod gateways;
mod http2;
mod layering;
mod leaks;
mod lifecycle;
mod limits;
mod live;
mod metrics;
mod model;
mod operator;
mod outage;
mod pass_through;
mod replay;
mod sessions;
mod store;
mod storm;
mod support;
mod tls;
mod upstream;
