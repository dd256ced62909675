//! The integration tests: one binary, one module per suite, on real parts.
//!
//! `cfg(test)` tells Clippy that the helpers, too, are test code.

#[cfg(test)]
mod live;
#[cfg(test)]
mod support;
