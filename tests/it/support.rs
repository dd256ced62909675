//! What several suites need: the real parts that they run on, who talks to those, and what was recorded.

pub(crate) mod client;
pub(crate) mod client_js;
pub(crate) mod corpus;
pub(crate) mod documents;
pub(crate) mod gotrue;
pub(crate) mod http;
pub(crate) mod issuer;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod relay;
pub(crate) mod sidecar;
pub(crate) mod upstream;
