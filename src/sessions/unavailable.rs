//! What readers do when the store cannot say (contract §9): one decision, in one place. It is never read as "no such
//! session": nobody is logged out, and nobody is let in for it.

use crate::config::Policy;

/// Who wanted to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The lookup beside a request, which decides nothing.
    Lookup,
    /// `enforce`
    Enforce,
    /// `/check`, with `check.on_store_error`.
    Check(Policy),
}

/// What happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// The request goes on, and GoTrue decides.
    LeftToGotrue,
    /// The token's own verdict counts.
    TokenDecides,
    /// 503: whoever asks has to come again.
    Unavailable,
}

/// What a reader does without the store.
pub fn without_store(reader: Reader) -> Without {
    match reader {
        Reader::Lookup | Reader::Enforce => Without::LeftToGotrue,
        Reader::Check(Policy::Allow) => Without::TokenDecides,
        Reader::Check(Policy::Deny) => Without::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_logged_out_and_nobody_is_let_in() {
        let table = [
            (Reader::Lookup, Without::LeftToGotrue),
            (Reader::Enforce, Without::LeftToGotrue),
            (Reader::Check(Policy::Deny), Without::Unavailable),
            (Reader::Check(Policy::Allow), Without::TokenDecides),
        ];
        for (reader, expected) in table {
            assert_eq!(without_store(reader), expected, "{reader:?}");
        }
    }
}
