//! The real parts that the suites run on, and those who talk to them.

pub(crate) mod client;
pub(crate) mod client_js;
pub(crate) mod gotrue;
pub(crate) mod http;
