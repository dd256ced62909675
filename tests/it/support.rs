//! Real parts that suites start and talk to.

pub(crate) mod redis;
