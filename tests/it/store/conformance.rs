//! What every store must do; the same cases for all of them.

mod endings;
mod lists;
mod questions;
mod records;

use std::collections::BTreeSet;

use super::*;
use crate::support::redis::{PASSWORD, Setup, Tls, documented_user, valkey};

/// Stands in the certificates of servers that are connected to by address.
const NAME: &str = "redis.internal";

macro_rules! conformance {
    ($($part:ident::$case:ident)*) => {
        async fn conform(store: &Store) {
            $(
                println!("{}", stringify!($case));
                $part::$case(store).await;
            )*
        }
    };
}

conformance! {
    records::a_sign_in_is_found_as_it_was_recorded
    records::a_session_nobody_saw_is_unknown
    records::the_same_answer_twice_changes_nothing
    records::a_refresh_renews_and_keeps_the_beginning
    records::what_a_refresh_no_longer_says_is_gone
    records::a_sign_in_tells_the_token_that_a_witness_did_not
    records::refreshes_in_any_order_leave_the_last
    records::refreshes_of_one_second_follow_their_tokens
    records::counters_order_better_than_seconds
    records::an_unchanged_token_renews_the_access_token
    records::a_late_sign_in_says_when_the_session_began
    records::a_verified_factor_stands_within_the_second
    records::extreme_times_are_taken
    endings::a_session_that_ended_stays_ended
    endings::ending_twice_ends_once
    endings::an_unknown_session_can_end
    endings::a_tombstone_outlives_tokens_that_are_told_of_late
    endings::a_token_that_comes_late_prolongs_the_tombstone
    endings::of_tokens_that_nobody_knows_the_tombstone_lives_longest
    endings::a_global_logout_ends_all_and_the_unknown_too
    endings::a_sign_in_after_a_global_logout_was_sent_lives
    endings::a_session_that_only_a_refresh_told_of_lives_if_it_began_after_the_ending
    endings::the_earliest_refresh_tells_what_an_ending_meant
    endings::a_session_that_had_begun_when_all_or_others_ended_does_not_come_back
    endings::a_session_that_had_begun_ends_in_whatever_order_it_is_told
    endings::others_spares_the_one
    endings::a_second_factor_ends_those_without
    endings::a_client_loses_its_sessions_only
    endings::a_ban_suspends_and_passes
    endings::a_lifted_ban_shows_the_session_again
    endings::an_older_ban_that_is_written_late_changes_nothing
    endings::a_refusal_while_a_ban_is_known_makes_it_no_longer
    endings::who_gets_tokens_is_banned_no_longer
    endings::a_ban_without_an_end_holds_at_least_so_long
    endings::an_end_comes_before_a_ban
    endings::a_removed_factor_lowers_the_level
    endings::changes_of_one_answer_are_made_in_order
    endings::users_do_not_meet
    lists::a_list_is_newest_first_and_whole
    lists::a_list_comes_in_pages
    lists::a_list_has_live_sessions_only
    lists::one_is_found_by_its_id_among_its_users
    lists::a_live_session_is_revoked_once
    lists::an_id_that_is_not_live_leaves_nothing_behind
    questions::a_touch_is_written_once_a_minute
    questions::a_touch_makes_no_session
    questions::a_mark_revokes_for_whoever_asks_what_began_before_it
    questions::a_token_leads_to_its_session
    questions::a_token_leads_to_no_ended_session
    questions::a_token_tells_what_became_of_its_session
    questions::an_audit_sees_all_of_it
    questions::it_answers_a_ping
}

#[tokio::test]
async fn the_embedded_store_conforms() {
    conform(&embedded()).await;
}

#[tokio::test]
async fn redis_by_tcp_conforms() {
    conform(&on(&RedisServer::start())).await;
}

#[tokio::test]
async fn redis_by_tcp_in_resp3_conforms() {
    let server = RedisServer::start();
    conform(&open(&config(redis_target(format!("{}?protocol=resp3", server.url()))))).await;
}

#[tokio::test]
async fn redis_by_unix_socket_conforms() {
    let server = RedisServer::launch(Setup::new().with_user());
    let url = format!("{}?db=2&user={USER}&pass={PASSWORD_IN_URL}", server.unix_url());
    conform(&open(&config(redis_target(url)))).await;
    assert_eq!(databases(server.client().await).await, ["db2"]);
}

#[tokio::test]
async fn redis_by_tls_with_an_own_ca_conforms() {
    let server = RedisServer::with_tls();
    conform(&open(&config(to(server.url(), |it| it.tls.ca_file = Some(server.ca_file()))))).await;
}

#[tokio::test]
async fn redis_by_tls_with_a_client_certificate_and_another_name_conforms() {
    let server = RedisServer::launch(Setup { tls: Tls::Mutual(NAME), ..Setup::new() });
    conform(&open(&config(to(server.url(), |it| it.tls = tls_with(&server, NAME))))).await;
}

#[tokio::test]
async fn redis_with_the_documented_user_conforms() {
    let server = RedisServer::launch(Setup::new().with_user());
    let store = open(&config(redis_target(server.url_of_user())));
    conform(&store).await;
    assert_eq!(users(server.client().await).await, [USER]);
}

#[tokio::test]
async fn a_master_behind_sentinels_conforms() {
    let sentinels = Sentinels::start().await;
    conform(&open(&config(behind(&sentinels)))).await;
}

/// They speak TLS themselves, and want to see a certificate.
#[tokio::test]
async fn a_master_behind_sentinels_by_tls_with_database_and_prefix_conforms() {
    let setup = Setup { tls: Tls::Mutual(NAME), ..Setup::new() };
    let sentinels = Sentinels::start_with(setup).await;
    let mut config = config(behind_with(&sentinels, |it| {
        it.url = SecretSource::Value(Secret::new(format!("{}/3", sentinels.url())));
        it.tls = tls_with(&sentinels.servers[0], NAME);
    }));
    config.key_prefix = "gotrue:of:this".to_owned(); // the documented user may
    conform(&open(&config)).await;
    let master = sentinels.master().await;
    assert_eq!(databases(sentinels.client(master).await).await, ["db3"]);
}

#[tokio::test]
async fn a_master_of_valkey_behind_its_sentinels_conforms() {
    let sentinels = Sentinels::start_with(Setup { program: valkey(), ..Setup::new() }).await;
    conform(&open(&config(behind(&sentinels)))).await;
}

#[tokio::test]
async fn a_cluster_conforms() {
    let cluster = RedisCluster::start().await;
    let store = open(&config(redis_target(cluster.url())));
    conform(&store).await;
    for node in &cluster.nodes {
        assert_eq!(users(node.client().await).await, [USER]);
    }
}

#[tokio::test]
async fn a_cluster_in_resp3_conforms() {
    let cluster = RedisCluster::start().await;
    conform(&open(&config(redis_target(format!("{}?protocol=resp3", cluster.url()))))).await;
}

#[tokio::test]
async fn a_cluster_by_tls_with_a_client_certificate_and_another_name_conforms() {
    let cluster = RedisCluster::start_with(Setup { tls: Tls::Mutual(NAME), ..Setup::new() }, 3, 0).await;
    let target = to(cluster.url(), |it| it.tls = tls_with(&cluster.nodes[0], NAME));
    conform(&open(&config(target))).await;
}

#[tokio::test]
async fn valkey_conforms() {
    let server = RedisServer::launch(Setup { program: valkey(), ..Setup::new() }.with_user());
    let store = open(&config(redis_target(server.url_of_user())));
    conform(&store).await;
    assert_eq!(users(server.client().await).await, [USER]);
}

#[tokio::test]
async fn a_cluster_of_valkey_conforms() {
    let cluster = RedisCluster::start_with(Setup { program: valkey(), ..Setup::new() }, 3, 0).await;
    conform(&open(&config(redis_target(cluster.url())))).await;
}

#[tokio::test]
async fn redis_with_user_password_file_database_and_prefix_conforms() {
    let user = documented_user().into_iter().map(|word| word.replace("~gotrue:", "~other:"));
    let server = RedisServer::launch(Setup::new().with(["--user"]).with(user));
    let (_folder, path) = password_file(PASSWORD);
    let mut config = config(to(format!("{}/7", server.url()), |it| {
        it.username = Some(USER.to_owned());
        it.password = Some(SecretSource::File(path));
    }));
    config.key_prefix = "other".to_owned();
    conform(&open(&config)).await;
    assert_eq!(databases(server.client().await).await, ["db7"]);
}

/// Who is there by TCP: the servers' default user, who needs no password, would get everywhere, too.
async fn users(mut redis: redis::aio::MultiplexedConnection) -> Vec<String> {
    let list = ["LIST", "TYPE", "NORMAL"];
    let clients: String = redis::cmd("CLIENT").arg(&list).query_async(&mut redis).await.unwrap();
    let by_tcp = clients.lines().filter(|line| line.contains(" addr=127.0.0.1:"));
    let user = |line: &str| line.split(' ').find_map(|word| word.strip_prefix("user=").map(str::to_owned));
    let users: BTreeSet<_> = by_tcp.filter_map(user).collect();
    users.into_iter().collect()
}

/// Those in which there are keys.
async fn databases(mut redis: redis::aio::MultiplexedConnection) -> Vec<String> {
    let info: String = redis::cmd("INFO").arg("keyspace").query_async(&mut redis).await.unwrap();
    info.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.to_owned()).collect()
}
