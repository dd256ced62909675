//! A master that changes.

use std::time::Instant;

use super::{
    faults::{failure, works},
    *,
};

/// After the Sentinels have named another master, it is followed within this; and what a busy machine adds.
const FOLLOWED: Duration = Duration::from_secs(1 + 1);

/// Signs somebody in again and again until it works; how long that took.
async fn until_it_works(store: &Store) -> Duration {
    let began = Instant::now();
    while !works(store).await {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

#[tokio::test]
async fn a_killed_master_is_followed_by_the_next() {
    let mut sentinels = Sentinels::start().await;
    let store = open(&config(behind(&sentinels)));
    let before = signed_in(somebody(), some_session());
    apply(&store, &sign_in(&before)).await;
    let old = sentinels.master().await;
    sentinels.replicated(old).await;
    sentinels.servers[old].kill();
    let watching = async {
        crate::support::until("another master is named", async || sentinels.master().await != old).await;
        Instant::now()
    };
    let working = async {
        until_it_works(&store).await;
        Instant::now()
    };
    let (named, worked) = tokio::join!(watching, working);
    let late = worked.saturating_duration_since(named);
    println!("works {late:?} after the Sentinels name another master");
    assert!(late < FOLLOWED, "{late:?}");
    live(&store, before.user, before.session).await;
}

#[tokio::test]
async fn nothing_is_written_to_a_demoted_master_after_a_second() {
    let sentinels = Sentinels::start().await;
    let store = open(&config(behind(&sentinels)));
    assert!(works(&store).await);
    let old = sentinels.master().await;
    sentinels.failover().await;
    let new = sentinels.master().await;
    tokio::time::sleep(FOLLOWED).await; // nobody asks for anything meanwhile
    let record = signed_in(somebody(), some_session());
    apply(&store, &sign_in(&record)).await;
    assert_ne!(old, new);
    let key = format!("gotrue:{{{}}}:sessions", record.user);
    let there: bool =
        redis::cmd("EXISTS").arg(&key).query_async(&mut sentinels.client(new).await).await.unwrap();
    assert!(there, "the new master does not have what was written");
}

#[tokio::test]
async fn a_hanging_master_is_followed_by_the_next() {
    let sentinels = Sentinels::start().await;
    let store = open(&hurried(behind(&sentinels)));
    until_it_works(&store).await;
    let old = sentinels.master().await;
    sentinels.servers[old].hang();
    let took = until_it_works(&store).await;
    println!("works {took:?} after the master hangs");
    sentinels.servers[old].go_on();
    assert!(works(&store).await);
}

#[tokio::test]
async fn sentinels_that_are_gone_or_refuse_change_nothing() {
    let mut sentinels = Sentinels::start().await;
    let store = open(&config(behind(&sentinels)));
    assert!(works(&store).await);
    sentinels.kill_sentinel(0);
    assert!(works(&open(&config(behind(&sentinels)))).await, "the others know the master");
    sentinels.kill_sentinel(1);
    sentinels.kill_sentinel(2);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(works(&store).await, "the master is still there");
    let late = open(&config(behind(&sentinels)));
    assert_eq!(late.ping().await.unwrap_err().cause(), "refused");
}

/// As after an outage of the master that was over soon: who is the master is to be asked again, and nobody says.
#[tokio::test]
async fn a_master_in_doubt_is_asked_itself_where_no_sentinel_says() {
    for hang in [false, true] {
        let mut sentinels = Sentinels::start().await;
        let timeout = Duration::from_secs(2);
        let store = open(&config::Store { timeout, ..config(behind(&sentinels)) });
        assert!(works(&store).await);
        for sentinel in 0..3 {
            if hang {
                sentinels.hang_sentinel(sentinel);
            } else {
                sentinels.kill_sentinel(sentinel);
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await; // what they said before counts no more
        store.renew(0, Instant::now());
        assert!(works(&store).await, "the master is well, the Sentinels hang: {hang}");
        sentinels.servers[0].kill();
        assert!(!works(&store).await);
        store.renew(0, Instant::now());
        assert!(!works(&store).await);
        sentinels.servers[0].restart();
        println!("works {:?} after the master is back", until_it_works(&store).await);
    }
}

#[tokio::test]
async fn a_master_in_doubt_that_was_demoted_is_not_written_to() {
    let mut sentinels = Sentinels::start().await;
    let store = open(&config(behind(&sentinels)));
    assert!(works(&store).await);
    (0..3).for_each(|sentinel| sentinels.kill_sentinel(sentinel));
    let mut demote = redis::cmd("REPLICAOF");
    demote.arg("127.0.0.1").arg(sentinels.servers[1].port());
    demote.exec_async(&mut sentinels.client(0).await).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await; // what they said before counts no more
    store.renew(0, Instant::now());
    assert_eq!(failure(&store).await.0, "read_only");
}

#[tokio::test]
async fn what_is_wrong_with_sentinels_is_named() {
    let sentinels = Sentinels::start().await;
    let StoreTarget::Redis(target) = behind(&sentinels) else { unreachable!() };
    let mut wrong = target.clone();
    wrong.sentinel.password = Some(SecretSource::Value(Secret::new("canary")));
    let mut error = open(&config(StoreTarget::Redis(wrong))).ping().await.unwrap_err();
    assert_eq!(error.cause(), "auth");
    let mut other = target;
    other.url = SecretSource::Value(Secret::new(sentinels.url().replace("/mymaster", "/theirs")));
    error = open(&config(StoreTarget::Redis(other))).ping().await.unwrap_err();
    assert_eq!(error.to_string(), "the store answered with the error NOMASTER");
}
