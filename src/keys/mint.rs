//! Tokens of our own, which GoTrue takes for its own: an opt-in (contract §6.4).

use aws_lc_rs::hmac;
use base64::Engine as _;
use jsonwebtoken::Algorithm;

use super::{Key, KeyRing};
use crate::{
    session::{Seconds, SessionId, UserId},
    token::BASE64URL,
};

/// A token of our own shall be good for so long, seconds (contract §6.4).
const MINTED_FOR: Seconds = 30;

impl KeyRing {
    /// A token that lets GoTrue end a session of `user`, or with none all of them; signed with the shared secret,
    /// good for 30 seconds. `None` where no secret is configured.
    ///
    /// GoTrue does not ask whether the session is the user's (GS §2): whoever calls this must have.
    pub fn mint(&self, user: UserId, session: Option<SessionId>, now: Seconds) -> Option<String> {
        let shared = |key: &&Key| key.id.is_none() && key.algorithm == Algorithm::HS256;
        let secret = self.configured.iter().find(shared)?.material.try_get_as_bytes().ok()?;
        let session = session.map_or(String::new(), |session| format!(r#""session_id":"{session}","#));
        let exp = now.saturating_add(MINTED_FOR);
        let claims = format!(
            r#"{{"sub":"{user}",{session}"aud":"authenticated","role":"authenticated","exp":{exp}}}"#
        );
        let signed =
            format!("{}.{}", BASE64URL.encode(r#"{"alg":"HS256","typ":"JWT"}"#), BASE64URL.encode(claims));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let signature = BASE64URL.encode(hmac::sign(&key, signed.as_bytes()));
        Some(format!("{signed}.{signature}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{keys::Verdict, token::Named};

    const SECRET: &[u8] = b"tests-only-jwt-secret-with-at-least-32-characters";
    const NOW: Seconds = 1_800_000_000;

    #[test]
    fn a_minted_token_names_its_session_and_dies_soon() {
        let ring = KeyRing::new(Some(SECRET), None).unwrap();
        let user = UserId::parse("0191d1a0-0000-7000-8000-00000000000a").unwrap();
        let session = SessionId::parse("0191d1a0-0000-7000-8000-000000000001").unwrap();
        for named in [Some(session), None] {
            let token = ring.mint(user, named, NOW).unwrap();
            let Verdict::Good(claims) = ring.verify(&token, NOW + 29) else { panic!("{token}") };
            assert_eq!(claims.user, Named::Id(user));
            assert_eq!(claims.session.id(), named);
            assert!(matches!(ring.verify(&token, NOW + 30), Verdict::Expired(_)));
        }
    }

    #[test]
    fn nothing_is_minted_with_a_key_that_is_no_shared_secret() {
        let user = UserId::parse("0191d1a0-0000-7000-8000-00000000000a").unwrap();
        let named =
            br#"[{"kty":"oct","kid":"one","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0","alg":"HS256"}]"#;
        for keys in [&b"[]"[..], named] {
            assert_eq!(KeyRing::new(None, Some(keys)).unwrap().mint(user, None, NOW), None);
        }
    }
}
