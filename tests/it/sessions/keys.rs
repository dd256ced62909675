//! Keys that GoTrue publishes (contract §8): every algorithm, rotation, and names that nobody knows.

use super::*;

async fn logs_out(world: &World, signer: &Signer) -> bool {
    let login = Login::new(NOW);
    world.know(&[&login]).await;
    world.pass(1);
    let token = login.access(signer);
    world.with_token(&token, Method::POST, "/logout?scope=local", "").await;
    // GoTrue refuses every logout here: what ends has ended by proof
    world.state(&login).await == State::Revoked
}

#[tokio::test]
async fn a_token_of_every_kind_of_published_key_is_proven() {
    let signers = [Signer::es256("e"), Signer::rs256("r"), Signer::eddsa("d")];
    let world = refusing(&[&signers[0], &signers[1], &signers[2]]).await;
    for signer in &signers {
        assert!(logs_out(&world, signer).await);
    }
    // the shared secret counts beside them
    assert!(logs_out(&world, &Signer::trusted()).await);
    // a name is no proof
    assert!(!logs_out(&world, &Signer::rs256("r")).await);
    assert!(!logs_out(&world, &Signer::es256("d")).await);
}

/// Takes the five seconds that must pass between two fetches.
#[tokio::test]
async fn a_key_that_was_rotated_in_is_fetched_when_it_is_first_named() {
    let (older, old, new) = (Signer::es256("older"), Signer::es256("old"), Signer::es256("new"));
    let world = refusing(&[&old, &older]).await;
    assert!(logs_out(&world, &old).await && logs_out(&world, &older).await);
    world.upstream.publish(&Signer::jwks(&[&new, &old]));
    until("the new key is known", async || logs_out(&world, &new).await).await;
    assert!(logs_out(&world, &old).await);
    assert!(!logs_out(&world, &older).await, "it was rotated out");
}

#[tokio::test]
async fn a_storm_of_unknown_names_asks_for_keys_once_in_a_while() {
    let world = refusing(&[]).await;
    let (began, before) = (std::time::Instant::now(), world.upstream.asked_for_keys());
    let storm = (0..100).map(|number| {
        let world = &world;
        async move {
            let token = Login::new(NOW).access(&Signer::es256(&format!("name-{number}")));
            world.with_token(&token, Method::POST, "/logout", "").await
        }
    });
    let mut storm: Vec<_> = storm.map(Box::pin).collect();
    for one in &mut storm {
        assert_eq!(one.await.error_code(), Some("bad_jwt"));
    }
    // not more often than every five seconds
    let most = before + 1 + usize::try_from(began.elapsed().as_secs() / 5).unwrap();
    assert!(world.upstream.asked_for_keys() <= most, "{} fetches", world.upstream.asked_for_keys());
}

async fn refusing(published: &[&Signer]) -> World {
    World::publishing(published, &["--jwt-secret", SECRET], always(error("403 Forbidden", "bad_jwt"))).await
}
