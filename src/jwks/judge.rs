//! One worker's way to judge the tokens of requests on their way to GoTrue.

use std::sync::Arc;

use super::{
    Verifier,
    remembered::{self, Kept, Remembered},
};
use crate::{
    keys::{TOKEN_MAX, Verdict},
    session::{Seconds, SessionId, UserId},
    token::Claims,
};

/// So many good tokens are kept, by each worker. One that is not costs no more than its signature does.
const MOST: usize = 16_384;
/// They take so much, by each worker; 400 bytes each, about, and their tables half as much again.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// Judges tokens. One that was found good is not verified again: that costs some 75 µs with ES256.
#[derive(Debug)]
pub struct Judge {
    verifier: Arc<Verifier>,
    good: Remembered<Claims>,
}

impl Judge {
    /// With the keys of `verifier`.
    pub fn new(verifier: Arc<Verifier>) -> Self {
        Self { verifier, good: Remembered::new(MOST, MOST_BYTES) }
    }

    /// See [`Verifier::verify`].
    pub fn verify(&self, token: &str, now: Seconds) -> Verdict {
        if token.len() > TOKEN_MAX {
            return Verdict::Bad;
        }
        // before the keys are looked at: what they say must not be taken for what later ones say
        let (hash, generation) = (remembered::hash(token), self.verifier.generation());
        if let Some(claims) = self.good.get(&hash, generation, now) {
            return Verdict::Good(claims);
        }
        let verdict = self.verifier.verify(token, now);
        if let Verdict::Good(claims) = &verdict {
            self.good.keep(hash, generation, claims);
        }
        verdict
    }

    /// See [`Verifier::verify_fetching`].
    pub async fn verify_fetching(&self, token: &str, now: Seconds) -> Verdict {
        match self.verify(token, now) {
            Verdict::NoKeys(_) | Verdict::UnknownKey(_) => self.verifier.verify_fetching(token, now).await,
            verdict => verdict,
        }
    }

    /// See [`Verifier::mint`].
    pub fn mint(&self, user: UserId, session: Option<SessionId>, now: Seconds) -> Option<String> {
        self.verifier.mint(user, session, now)
    }
}

impl Kept for Claims {
    fn expires_at(&self) -> Option<Seconds> {
        self.expires_at
    }

    fn bytes(&self) -> usize {
        let email = self.email.as_ref().map_or(0, |email| email.reveal().len());
        let texts = [&self.amr.methods, &self.role, &self.client_id];
        size_of::<Self>() + email + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac;
    use base64::Engine as _;

    use super::*;
    use crate::{keys::KeyRing, metrics::Metrics, token::BASE64URL};

    const NOW: Seconds = 1_800_000_000;

    fn signed(secret: &str, payload: &str) -> String {
        let signed = format!("{}.{}", BASE64URL.encode(r#"{"alg":"HS256"}"#), BASE64URL.encode(payload));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        format!("{signed}.{}", BASE64URL.encode(hmac::sign(&key, signed.as_bytes())))
    }

    fn judge(secret: &str) -> Judge {
        let ring = KeyRing::new(Some(secret.as_bytes()), None).unwrap();
        Judge::new(Arc::new(Verifier::new(ring, None, Arc::new(Metrics::new().unwrap()))))
    }

    #[test]
    fn a_good_token_is_verified_once() {
        let (judge, token) = (judge("secret"), signed("secret", r#"{"exp":1800000010}"#));
        let [first, second] = [0, 9].map(|later| judge.verify(&token, NOW + later));
        let (Verdict::Good(first), Verdict::Good(second)) = (first, second) else { panic!("not good") };
        assert!(Arc::ptr_eq(&first, &second));
        assert!(matches!(judge.verify(&token, NOW + 10), Verdict::Expired(_)));
    }

    #[test]
    fn what_a_key_said_holds_as_long_as_the_key() {
        let (judge, token) = (judge("secret"), signed("secret", "{}"));
        assert!(matches!(judge.verify(&token, NOW), Verdict::Good(_)));
        judge.verifier.configured(&KeyRing::new(Some(b"another"), None).unwrap());
        assert_eq!(judge.verify(&token, NOW), Verdict::Bad);
        judge.verifier.configured(&KeyRing::new(Some(b"secret"), None).unwrap());
        assert!(matches!(judge.verify(&token, NOW), Verdict::Good(_)));
    }

    #[test]
    fn only_good_tokens_are_remembered() {
        let judge = judge("secret");
        let early = signed("secret", r#"{"nbf":1800000010}"#);
        assert_eq!(judge.verify(&early, NOW), Verdict::Bad);
        assert!(matches!(judge.verify(&early, NOW + 10), Verdict::Good(_)));
        let forged = signed("another", r#"{"nbf":1800000010}"#);
        for _ in 0..2 {
            assert_eq!(judge.verify(&forged, NOW + 10), Verdict::Bad);
        }
    }
}
