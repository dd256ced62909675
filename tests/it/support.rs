<<<<<<< HEAD
<<<<<<< HEAD
//! What several integration tests need.
=======
//! What several suites need: the real parts that they run on, who talks to those, and what was recorded.
>>>>>>> live

pub(crate) mod client;
pub(crate) mod client_js;
pub(crate) mod corpus;
<<<<<<< HEAD
=======
//! Real parts that suites start and talk to.

pub(crate) mod redis;
>>>>>>> store
=======
pub(crate) mod gotrue;
pub(crate) mod http;
>>>>>>> live
