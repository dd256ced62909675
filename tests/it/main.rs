//! Integration tests: one binary, a module per subject.

mod decisions;
mod support;
