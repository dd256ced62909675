<<<<<<< HEAD
//! What several integration tests need.

pub(crate) mod corpus;
=======
//! Real parts that suites start and talk to.

pub(crate) mod redis;
>>>>>>> store
