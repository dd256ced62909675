//! Two replicas, one of which cannot reach Redis for a while: what each of them answers meanwhile, and that they
//! agree afterwards (contract §9, I3, I9, I11). The cut lasts `FAULTS_SECONDS`, else 1.2 s.

use std::time::{Duration, Instant};

use gotrue_sidecar::session::{SessionId, UserId};
use http::{Request, StatusCode, header};
use tokio::time::sleep;

use super::{
    Cell, Fault, Shape,
    crowd::{Ask, Device},
    house::House,
    setting,
    world::{TIMEOUT, World},
};
use crate::support::{
    dice::Dice,
    http::{Answer, send},
    process::{eventually, run},
    relay::Does,
    signer::Login,
};

/// The replica that is cut off, and the other one. Both enforce.
const CUT: usize = 0;
const WELL: usize = 1;

/// What a request takes at most while the fault is new: the bound, and what a busy machine adds.
const LONGEST: Duration = Duration::from_millis(250 + 1250);

#[tokio::test]
async fn a_replica_that_is_cut_off_serves_and_agrees_afterwards() {
    let house = House::build(Cell { shape: Shape::Standalone, fault: Fault::HalfOpen }).await;
    let ((relay, cut), well) = (house.side_door().await, house.flags());
    let cut = [cut, vec!["--enforce=true".to_owned()]].concat();
    let world = World::start([&cut, &well]).await;
    let user = Login::new(0).user;
    let mut phone = signed_in(&world, user, CUT).await;
    let mut laptop = signed_in(&world, user, WELL).await;
    let mut tablet = signed_in(&world, user, CUT).await;

    relay.does(Does::Lose);
    let began = Instant::now();
    // everybody is served, in time
    let mut watch = signed_in(&world, user, CUT).await;
    let (phones, laptops) = (phone.login().clone(), laptop.login().clone());
    ask(&mut phone, Ask::Logout("?scope=local"), CUT).await;
    // the store still has it at the other replica; GoTrue's own answer is the truth
    assert_eq!(status(&world, WELL, &phones).await, StatusCode::FORBIDDEN);
    // an operator revokes where GoTrue is not asked: the one refuses, the other cannot know and leaves it to GoTrue
    revoke(&well, user, laptops.session).await;
    assert_eq!(status(&world, WELL, &laptops).await, StatusCode::FORBIDDEN);
    assert_eq!(status(&world, CUT, &laptops).await, StatusCode::OK);
    ask(&mut laptop, Ask::Refresh, CUT).await;
    // refreshed on both sides, the older one last to be written
    ask(&mut tablet, Ask::Refresh, CUT).await;
    ask(&mut tablet, Ask::Refresh, WELL).await;
    ask(&mut watch, Ask::User, WELL).await;
    sleep(Duration::from_secs_f64(setting("FAULTS_SECONDS").unwrap_or(1.2)).saturating_sub(began.elapsed()))
        .await;
    ask(&mut watch, Ask::Refresh, CUT).await;

    relay.swallow();
    relay.does(Does::Pass);
    let up = async || (world.is_up().await && world.waiting().await == 0).then_some(());
    eventually(up, || format!("the replica does not come back\n{}", world.logs())).await;
    // what was revoked stays so: GoTrue, which was not told, has the session, and the store does not
    for replica in [CUT, WELL] {
        assert_eq!(status(&world, replica, &phones).await, StatusCode::FORBIDDEN, "{replica}");
        assert_eq!(status(&world, replica, laptop.login()).await, StatusCode::FORBIDDEN, "{replica}");
        assert_eq!(status(&world, replica, tablet.login()).await, StatusCode::OK, "{replica}");
        assert_eq!(status(&world, replica, watch.login()).await, StatusCode::OK, "{replica}");
    }
    // its refresh ends it in GoTrue as well (§6.3), and then nothing differs
    let answer = refresh(&world, CUT, laptop.login()).await;
    assert_eq!(answer.error_code(), Some("refresh_token_not_found"), "{answer:?}");
    let is_true = async || world.witness.differing(&house.stored().await).is_empty().then_some(());
    eventually(is_true, || format!("the mirror is not true\n{}", world.logs())).await;
}

/// Only the replica that saw the login knows to the millisecond that it came after the logout; what the other one
/// writes first does not say so.
#[tokio::test]
async fn a_login_after_a_logout_everywhere_outlives_an_outage_in_which_another_replica_refreshed_it() {
    let house = House::build(Cell { shape: Shape::Standalone, fault: Fault::HalfOpen }).await;
    for first in [CUT, WELL] {
        let (doors, flags): (Vec<_>, Vec<_>) =
            [house.side_door().await, house.side_door().await].into_iter().unzip();
        let world = World::start([&flags[0], &flags[1]]).await;
        let user = Login::new(0).user;
        let mut phone = signed_in(&world, user, CUT).await;
        for relay in &doors {
            relay.does(Does::Lose);
        }
        ask(&mut phone, Ask::Logout(""), CUT).await;
        let mut laptop = signed_in(&world, user, CUT).await;
        ask(&mut laptop, Ask::Refresh, WELL).await;
        for replica in [first, 1 - first] {
            doors[replica].swallow();
            doors[replica].does(Does::Pass);
            let queue = "gotrue_sidecar_mirror_queue_length";
            world.replicas[replica].metric_becomes(queue, 0).await;
        }
        assert_eq!(world.witness.differing(&house.stored().await).len(), 0, "{first} came back first");
        for replica in [CUT, WELL] {
            assert_eq!(status(&world, replica, laptop.login()).await, StatusCode::OK);
        }
        ask(&mut laptop, Ask::Logout(""), WELL).await;
    }
}

async fn signed_in(world: &World, user: UserId, replica: usize) -> Device {
    let mut device = Device::new(world, user, Dice::new(0));
    ask(&mut device, Ask::SignIn, replica).await;
    device
}

/// It must be answered by GoTrue, and within the bound.
async fn ask(device: &mut Device, ask: Ask, replica: usize) {
    let sample = device.ask(ask, replica).await;
    assert_eq!(sample.error, None, "{ask:?}");
    assert!(sample.took < LONGEST, "{ask:?} took {:?}, {TIMEOUT:?} is the bound", sample.took);
}

async fn status(world: &World, replica: usize, login: &Login) -> StatusCode {
    let bearer = format!("Bearer {}", login.access(&world.witness.signer));
    let request = Request::get(format!("{}/user", world.replicas[replica].url))
        .header(header::AUTHORIZATION, bearer)
        .body(String::new())
        .unwrap();
    send(request).await.unwrap().status
}

async fn refresh(world: &World, replica: usize, login: &Login) -> Answer {
    let url = format!("{}/token?grant_type=refresh_token", world.replicas[replica].url);
    let body = format!(r#"{{"refresh_token":"{}"}}"#, login.refresh());
    send(Request::post(url).body(body).unwrap()).await.unwrap()
}

/// As an operator does, with nothing but the store.
async fn revoke(store: &[String], user: UserId, session: SessionId) {
    let (user, session) = (user.to_string(), session.to_string());
    let words = ["sessions", "revoke", "--user", &user, "--session", &session].map(str::to_owned);
    let args = [&words, store].concat();
    // the relay that it comes by is one of this thread's tasks
    let output = tokio::task::spawn_blocking(move || run(&args)).await.unwrap();
    assert!(output.status.success(), "{output:?}");
}
