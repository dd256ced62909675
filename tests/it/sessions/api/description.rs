//! docs/session-api.yaml, held against the running server.
