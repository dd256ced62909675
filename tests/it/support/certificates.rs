//! Certificates made on the spot.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Writes `cert.pem` and `key.pem` for `127.0.0.1` into the folder, and `ca.pem`, the CA of their own
/// that made them.
pub(crate) fn make(folder: &Path) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL, by which Redis verifies, takes a certificate with its issuer's name for self-signed
    ca.distinguished_name.push(DnType::CommonName, "the CA of a test");
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    fs::write(folder.join("ca.pem"), ca_certificate.pem()).unwrap();
    fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}
