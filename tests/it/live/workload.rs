//! Whatever several people do at once, afterwards the store is `auth.sessions` (contract I4, I1 to I3, I10).
//!
//! People with several devices each do at random all that the upstream has; after each batch the judge
//! compares. What a mirror cannot know has a name ([`judge::Rule`]); everything else is a failure. A run is
//! told by its seed, though not how its requests interleave. The environment makes it long:
//!
//! - `LIVE_OPERATIONS`: how many, for each form of the server
//! - `LIVE_SEED`: the seed of the first
//!
//! `LIVE_OPERATIONS=5000 bin/test-gotrue workload --nocapture --test-threads=1` is the long mode.

mod device;
mod judge;
mod operation;
mod world;

use std::{str::FromStr, sync::Arc, time::Instant};

use self::world::World;
use crate::support::{
    dice::Dice,
    gotrue::{Gotrue, Kind, RefreshTokens, Settings, Signing},
    pod::{before, keys_without_ttl},
    redis::RedisServer,
};

/// Without `LIVE_OPERATIONS`: as many as fit into a few seconds.
const OPERATIONS: usize = 400;
const PEOPLE: usize = 5;
const DEVICES: usize = 3;
/// Of each device, between two looks at the store.
const PER_BATCH: usize = 8;

#[tokio::test]
async fn with_v1_refresh_tokens_the_store_stays_true() {
    work(&[(RefreshTokens::V1, Signing::Hs256)]).await;
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn with_v2_refresh_tokens_and_public_keys_the_store_stays_true() {
    Kind::must_be_real();
    work(&[(RefreshTokens::V2, Signing::Es256)]).await;
}

/// Two replicas, one of whose servers still issues v1 tokens: both forms in one store, upgrades among them.
#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn on_two_replicas_with_both_forms_the_store_stays_true() {
    Kind::must_be_real();
    work(&[(RefreshTokens::V1, Signing::Hs256), (RefreshTokens::V2, Signing::Hs256)]).await;
}

/// Servers on one database, each with a sidecar before it, and all sidecars on one Redis.
#[expect(clippy::print_stdout, reason = "the seed, and what a long run is for")]
async fn work(forms: &[(RefreshTokens, Signing)]) {
    let (operations, seed) =
        (number("LIVE_OPERATIONS").unwrap_or(OPERATIONS), number("LIVE_SEED").unwrap_or_else(world::now));
    println!("LIVE_SEED={seed} LIVE_OPERATIONS={operations} {forms:?}");
    let redis = RedisServer::start();
    let mut servers: Vec<Gotrue> = Vec::new();
    for (refresh_tokens, signing) in forms.iter().copied() {
        let settings = Settings { refresh_tokens, signing, ..Settings::default() };
        servers.push(match servers.first() {
            Some(first) => Gotrue::beside(first, settings).await,
            None => Gotrue::start_with(settings).await,
        });
    }
    let sidecars: Vec<_> = servers.iter().map(|gotrue| before(gotrue, &redis, &[])).collect();
    let addresses = sidecars.iter().map(|sidecar| sidecar.url.as_str());
    let world = Arc::new(World::new(servers.swap_remove(0), addresses).await);
    let mut redis = redis.client().await;

    let (mut dice, began) = (Dice::new(seed), Instant::now());
    let mut people = Vec::new();
    while world.done() < operations {
        people.retain(world::Household::is_here);
        while people.len() < PEOPLE {
            people.push(world.new_household(DEVICES, &mut dice).await);
        }
        world::run_batch(&world, &mut people, PER_BATCH).await;
        judge::compare(&world, &mut redis).await;
    }
    assert_eq!(keys_without_ttl(&mut redis).await, [""; 0]);
    println!("{} in {:.1} s\n{}", world.done(), began.elapsed().as_secs_f64(), world.account());
}

fn number<T: FromStr>(variable: &str) -> Option<T> {
    #[expect(clippy::disallowed_methods, reason = "says how long a test is, configures nothing")]
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}
