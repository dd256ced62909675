use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use http::HeaderValue;

use super::*;

const SECRET: &[u8] = b"a-secret-with-at-least-32-characters";
const NOW: Seconds = 1_000;
const CLAIMS: &str = r#"{"sub":"0191d1a0-0000-7000-8000-000000000001","exp":2000}"#;

fn token(header: &str, claims: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(claims));
    let signature = BASE64URL.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn hs256(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> + '_ {
    |message| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        hmac::sign(&key, message).as_ref().to_vec()
    }
}

fn es256(pair: &EcdsaKeyPair) -> impl Fn(&[u8]) -> Vec<u8> + '_ {
    |message| pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
}

fn ec_jwk(pair: &EcdsaKeyPair, extra: &str) -> String {
    let point = pair.public_key().as_ref();
    let (x, y) = (BASE64URL.encode(&point[1..33]), BASE64URL.encode(&point[33..]));
    format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"{extra}}}"#)
}

fn ec_pair() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn shared() -> KeyRing {
    KeyRing::new(Some(SECRET), None).unwrap()
}

fn name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Good(_) => "good",
        Verdict::Expired(_) => "expired",
        Verdict::NoKeys(_) => "no keys",
        Verdict::UnknownKey(_) => "unknown key",
        Verdict::Bad => "bad",
    }
}

#[test]
fn times_are_judged_without_leeway() {
    let table = [
        (r#"{"exp":1001}"#, "good"),
        (r#"{"exp":1000}"#, "expired"),
        (r#"{"exp":1000.9}"#, "expired"),
        (r#"{"exp":1001.2}"#, "good"),
        (r#"{"exp":1}"#, "expired"),
        ("{}", "good"),
        (r#"{"nbf":1000}"#, "good"),
        (r#"{"nbf":1001}"#, "bad"),
        (r#"{"nbf":1001,"exp":5}"#, "bad"),
        (r#"{"iat":5000}"#, "good"),
        (r#"{"exp":"2000"}"#, "bad"),
        (r#"{"sub":7}"#, "bad"),
        ("[]", "bad"),
    ];
    for (claims, expected) in table {
        let token = token(r#"{"alg":"HS256"}"#, claims, hs256(SECRET));
        assert_eq!(name(&shared().verify(&token, NOW)), expected, "{claims}");
    }
}

#[test]
fn only_the_right_secret_and_an_intact_token_are_good() {
    let good = token(r#"{"alg":"HS256","typ":"JWT"}"#, CLAIMS, hs256(SECRET));
    assert_eq!(name(&shared().verify(&good, NOW)), "good");
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let other = BASE64URL.encode(r#"{"sub":"0191d1a0-0000-7000-8000-000000000002"}"#);
    for bad in [
        token(r#"{"alg":"HS256"}"#, CLAIMS, hs256(b"another")),
        token(r#"{"alg":"HS256"}"#, CLAIMS, |_| Vec::new()),
        format!("{header}.{other}.{signature}"),
        format!("{signed}."),
        signed.to_owned(),
        format!("{good}."),
        format!("{good}="),
        format!(".{good}"),
        String::new(),
        "....".to_owned(),
        "a".repeat(TOKEN_MAX + 1),
    ] {
        assert_eq!(name(&shared().verify(&bad, NOW)), "bad", "{bad}");
    }
}

#[test]
fn algorithms_that_no_key_has_are_refused() {
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS384"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"PS256"}"#,
        r#"{"alg":""}"#,
        r#"{"alg":7}"#,
        r#"{"kid":"a"}"#,
        "{}",
        "[]",
        "",
    ] {
        let token = token(header, CLAIMS, hs256(SECRET));
        assert_eq!(name(&shared().verify(&token, NOW)), "bad", "{header}");
    }
}

#[test]
fn a_public_key_is_never_a_shared_secret() {
    let pair = ec_pair();
    let rsa = RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let parts = signature::RsaPublicKeyComponents::<Vec<u8>>::from(rsa.public_key());
    let (n, e) = (BASE64URL.encode(&parts.n), BASE64URL.encode(&parts.e));
    let keys = format!(
        r#"[{},{{"kty":"RSA","kid":"r","alg":"RS256","n":"{n}","e":"{e}"}}]"#,
        ec_jwk(&pair, r#","kid":"e","alg":"ES256""#)
    );
    let ring = KeyRing::new(None, Some(keys.as_bytes())).unwrap();
    let secrets: [&[u8]; 4] = [pair.public_key().as_ref(), &parts.n, rsa.public_key().as_ref(), n.as_bytes()];
    for secret in secrets {
        for kid in ["e", "r"] {
            let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
            let token = token(&header, CLAIMS, hs256(secret));
            assert_eq!(name(&ring.verify(&token, NOW)), "bad");
        }
        let token = token(r#"{"alg":"HS256"}"#, CLAIMS, hs256(secret));
        assert_eq!(name(&ring.verify(&token, NOW)), "unknown key");
    }
}

#[test]
fn every_algorithm_gotrue_signs_with_is_verified() {
    let ec = ec_pair();
    let rsa = RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let parts = signature::RsaPublicKeyComponents::<Vec<u8>>::from(rsa.public_key());
    let (n, e) = (BASE64URL.encode(&parts.n), BASE64URL.encode(&parts.e));
    let ed = Ed25519KeyPair::generate().unwrap();
    let x = BASE64URL.encode(ed.public_key().as_ref());
    let oct = BASE64URL.encode(b"another-shared-secret-of-32-bytes!!");
    let keys = format!(
        r#"[{},
            {{"kty":"RSA","kid":"r2","alg":"RS256","n":"{n}","e":"{e}"}},
            {{"kty":"RSA","kid":"r5","alg":"RS512","n":"{n}","e":"{e}"}},
            {{"kty":"OKP","crv":"Ed25519","kid":"ed","alg":"EdDSA","x":"{x}","d":"{x}"}},
            {{"kty":"oct","kid":"o","alg":"HS256","k":"{oct}","key_ops":["verify"]}},
            {{"kty":"EC","crv":"P-521","kid":"e5","alg":"ES512","x":"{x}","y":"{x}"}},
            {{"kty":"RSA","kid":"enc","use":"enc","n":"{n}","e":"{e}"}},
            {{"kty":"future","kid":"f"}}]"#,
        ec_jwk(&ec, r#","kid":"e2","alg":"ES256","d":"AA","key_ops":["sign","verify"]"#)
    );
    let ring = KeyRing::new(Some(SECRET), Some(keys.as_bytes())).unwrap();
    assert_eq!(ring.skipped(), 3);
    let sign_rsa = |padding: &'static dyn signature::RsaEncoding| {
        let rsa = &rsa;
        move |message: &[u8]| {
            let mut signature = vec![0; rsa.public_modulus_len()];
            rsa.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
            signature
        }
    };
    let rs256 = sign_rsa(&signature::RSA_PKCS1_SHA256);
    let rs512 = sign_rsa(&signature::RSA_PKCS1_SHA512);
    let good = [
        token(r#"{"alg":"HS256"}"#, CLAIMS, hs256(SECRET)),
        token(r#"{"alg":"HS256","kid":"gone"}"#, CLAIMS, hs256(SECRET)),
        token(r#"{"alg":"HS256","kid":7}"#, CLAIMS, hs256(SECRET)),
        token(r#"{"alg":"HS256","kid":"o"}"#, CLAIMS, hs256(b"another-shared-secret-of-32-bytes!!")),
        token(r#"{"alg":"ES256","kid":"e2"}"#, CLAIMS, es256(&ec)),
        token(r#"{"alg":"RS256","kid":"r2"}"#, CLAIMS, rs256),
        token(r#"{"alg":"RS512","kid":"r5"}"#, CLAIMS, rs512),
        token(r#"{"alg":"EdDSA","kid":"ed"}"#, CLAIMS, |m| ed.sign(m).as_ref().to_vec()),
    ];
    for token in good {
        assert_eq!(name(&ring.verify(&token, NOW)), "good", "{token}");
    }
    let not = [
        (token(r#"{"alg":"HS256","kid":"o"}"#, CLAIMS, hs256(SECRET)), "bad"),
        (token(r#"{"alg":"RS256","kid":"r5"}"#, CLAIMS, rs256), "bad"),
        (token(r#"{"alg":"ES256","kid":"r2"}"#, CLAIMS, es256(&ec)), "bad"),
        (token(r#"{"alg":"ES256","kid":"e2"}"#, CLAIMS, es256(&ec_pair())), "bad"),
        (token(r#"{"alg":"ES256"}"#, CLAIMS, es256(&ec)), "unknown key"),
        (token(r#"{"alg":"ES256","kid":"new"}"#, CLAIMS, es256(&ec)), "unknown key"),
        (token(r#"{"alg":"RS256","kid":"enc"}"#, CLAIMS, rs256), "unknown key"),
    ];
    for (token, expected) in not {
        assert_eq!(name(&ring.verify(&token, NOW)), expected, "{token}");
    }
}

#[test]
fn a_fetched_key_set_replaces_the_one_before_and_brings_no_secrets() {
    let (old, new) = (ec_pair(), ec_pair());
    let by_old = token(r#"{"alg":"ES256","kid":"old"}"#, CLAIMS, es256(&old));
    let by_new = token(r#"{"alg":"ES256","kid":"new"}"#, CLAIMS, es256(&new));
    let by_secret = token(r#"{"alg":"HS256"}"#, CLAIMS, hs256(SECRET));
    let foreign = token(r#"{"alg":"HS256","kid":"o"}"#, CLAIMS, hs256(b"planted"));

    let none = KeyRing::default();
    assert_eq!(name(&none.verify(&by_old, NOW)), "no keys");
    assert_eq!(name(&none.verify("x", NOW)), "bad");

    let first = shared()
        .with_jwks(format!(r#"{{"keys":[{}]}}"#, ec_jwk(&old, r#","kid":"old""#)).as_bytes())
        .unwrap();
    assert_eq!(name(&first.verify(&by_old, NOW)), "good");
    assert_eq!(name(&first.verify(&by_new, NOW)), "unknown key");

    let oct = BASE64URL.encode(b"planted");
    let second = first
        .with_jwks(
            format!(
                r#"{{"keys":[{},{{"kty":"oct","kid":"o","k":"{oct}"}},{{"kty":"EC"}},7,null,
                   {{"kty":"x"}},{{"kty":"EC","crv":"P-256","x":"~","y":"~","kid":"z"}}]}}"#,
                ec_jwk(&new, r#","kid":"new","alg":"ES256","use":"sig""#)
            )
            .as_bytes(),
        )
        .unwrap();
    assert_eq!(name(&second.verify(&by_new, NOW)), "good");
    assert_eq!(name(&second.verify(&by_old, NOW)), "unknown key");
    assert_eq!(name(&second.verify(&by_secret, NOW)), "good");
    assert_eq!(name(&second.verify(&foreign, NOW)), "bad");
    assert!(KeyRing::default().with_jwks(br#"{"keys":[]}"#).unwrap().is_empty());
}

#[test]
fn unusable_keys_are_named_by_place_and_never_shown() {
    for json in ["", "{}", r#"{"keys":[]}"#, "7"] {
        let error = KeyRing::new(None, Some(json.as_bytes())).unwrap_err();
        assert_eq!(error.to_string(), "expected a JSON array of JSON Web Keys", "{json}");
    }
    for json in [
        r#"[{"kty":"oct","k":"aGk"},7]"#,
        r#"[{"kty":"oct","k":"aGk"},{"kty":"oct"}]"#,
        r#"[{"kty":"oct","k":"aGk"},{"kty":"oct","k":"secret!"}]"#,
    ] {
        let error = KeyRing::new(None, Some(json.as_bytes())).unwrap_err().to_string();
        assert!(error.starts_with("key 1: ") && !error.contains("secret!"), "{error}");
    }
    for json in ["", "[]", r#"{"keys":{}}"#] {
        assert!(shared().with_jwks(json.as_bytes()).is_err(), "{json}");
    }
    assert!(!format!("{:?}", shared()).contains("secret"));
}

#[test]
fn the_bearer_token_is_what_gotrue_takes_for_one() {
    let table: [(&[&'static str], Option<&str>); 12] = [
        (&["Bearer a.b.c"], Some("a.b.c")),
        (&["bearer a"], Some("a")),
        (&["BEARER a"], Some("a")),
        (&["Bearer a", "Bearer b"], Some("a")),
        (&["Basic x", "Bearer b"], None),
        (&["Bearer  a"], None),
        (&["Bearer a b"], None),
        (&["Bearer\ta"], None),
        (&["Bearer a\tb"], None),
        (&["Bearer "], None),
        (&["Bearer"], None),
        (&[], None),
    ];
    for (values, expected) in table {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        assert_eq!(bearer(&headers), expected, "{values:?}");
    }
    let unseen = HeaderValue::from_bytes("Bearer a.b.\u{e9}".as_bytes()).unwrap();
    assert_eq!(bearer(&HeaderMap::from_iter([(AUTHORIZATION, unseen)])), None);
}

/// How long verifying takes: `cargo test --lib cost_of_verifying -- --nocapture` prints it. The
/// bounds only catch a blunder, such as a key that is parsed anew in a slow way.
#[test]
fn the_cost_of_verifying_stays_small() {
    let ec = ec_pair();
    let keys = format!("[{}]", ec_jwk(&ec, r#","kid":"e""#));
    let ring = KeyRing::new(Some(SECRET), Some(keys.as_bytes())).unwrap();
    let filler = "x".repeat(700);
    let claims = format!(r#"{{"sub":"0191d1a0-0000-7000-8000-000000000001","exp":2000,"x":"{filler}"}}"#);
    let tokens = [
        ("HS256", token(r#"{"alg":"HS256"}"#, &claims, hs256(SECRET))),
        ("ES256", token(r#"{"alg":"ES256","kid":"e"}"#, &claims, es256(&ec))),
    ];
    for (algorithm, token) in tokens {
        let started = std::time::Instant::now();
        for _ in 0..500 {
            assert_eq!(name(&ring.verify(&token, NOW)), "good");
        }
        let each = started.elapsed() / 500;
        println!("{algorithm}: {each:?} a token of {} bytes", token.len());
        assert!(each < std::time::Duration::from_millis(5), "{algorithm}: {each:?}");
    }
}
