//! A second factor: time-based one-time passwords (RFC 6238) as an authenticator app makes them.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use http::Method;
use serde_json::json;

use super::{Answer, Client, Tokens, new_email};

/// A factor, verified or not, and its secret.
#[derive(Clone, Debug)]
pub(crate) struct Factor {
    pub(crate) id: String,
    secret: Vec<u8>,
}

impl Client {
    /// Adds a factor that is not verified yet; the answer's refusal when GoTrue has one.
    pub(crate) async fn enroll(&self, tokens: &Tokens) -> Result<Factor, Answer> {
        let body = json!({"factor_type": "totp", "friendly_name": new_email()});
        let answer = self.request(Method::POST, "/factors", Some(&tokens.access), Some(&body)).await;
        if !answer.status.is_success() {
            return Err(answer);
        }
        let factor = answer.json();
        let secret = base32(factor["totp"]["secret"].as_str().unwrap());
        Ok(Factor { id: factor["id"].as_str().unwrap().to_owned(), secret })
    }

    /// Asks for a challenge and answers it with the code of this moment.
    pub(crate) async fn verify_factor(&self, tokens: &Tokens, factor: &Factor) -> Answer {
        let path = format!("/factors/{}", factor.id);
        let challenged =
            self.request(Method::POST, &format!("{path}/challenge"), Some(&tokens.access), None).await;
        if !challenged.status.is_success() {
            return challenged;
        }
        let body = json!({"challenge_id": challenged.json()["id"], "code": factor.code()});
        self.request(Method::POST, &format!("{path}/verify"), Some(&tokens.access), Some(&body)).await
    }

    pub(crate) async fn unenroll(&self, tokens: &Tokens, factor: &Factor) -> Answer {
        self.request(Method::DELETE, &format!("/factors/{}", factor.id), Some(&tokens.access), None).await
    }
}

impl Factor {
    fn code(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.secret);
        six_digits(hmac::sign(&key, &(now / 30).to_be_bytes()).as_ref())
    }
}

/// RFC 4226 §5.3.
fn six_digits(mac: &[u8]) -> String {
    let at = usize::from(mac[19] & 0xf);
    let four: [u8; 4] = mac[at..at + 4].try_into().unwrap();
    format!("{:06}", (u32::from_be_bytes(four) & 0x7fff_ffff) % 1_000_000)
}

/// RFC 4648 §6, without padding.
fn base32(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0_u32);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let five = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'2'..=b'7' => letter - b'2' + 26,
            _ => panic!("{text} is not base32"),
        };
        held = ((held << 5) | u32::from(five)) & 0xffff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((held >> bits) & 0xff).unwrap());
        }
    }
    bytes
}

#[test]
fn codes_are_those_of_the_rfc() {
    let secret = base32("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    assert_eq!(secret, b"12345678901234567890");
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret);
    for (time, code) in [(59_u64, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")] {
        assert_eq!(six_digits(hmac::sign(&key, &(time / 30).to_be_bytes()).as_ref()), code);
    }
}
