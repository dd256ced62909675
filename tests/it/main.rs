//! Integration tests: one binary, a module per subject.

#[cfg(test)]
mod decisions;
#[cfg(test)]
mod support;
