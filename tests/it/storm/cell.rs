//! One cell: people at work, the fault, its end, and what became of the mirror.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{
    Cell, Loss,
    crowd::{Ask, Crowd, Device, Work},
    house::House,
    report::Report,
    world::{Difference, Differing, World},
};
use crate::support::dice::Dice;

/// People work so long before the fault and after it.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_millis(300);

/// A request may wait so long when the fault is new: `store.timeout`, and half a second; and twice what the machine
/// is seen to add, because two processes and as many threads here need their turn.
const LONGEST: Duration = Duration::from_millis(250 + 500);

/// After so long a fault is known, and requests wait no more.
const KNOWN: Duration = Duration::from_secs(1);

/// After so long it is known of every part of a Cluster, also where only the probe asks: a second until its turn comes,
/// and three answers that it waits for in vain. Faults that are shorter are not judged by this.
const KNOWN_EVERYWHERE: Duration = Duration::from_millis(2_500);

/// What nine of ten requests take then, with what the machine adds; of fewer than so many requests nothing is concluded.
const AT_ONCE: Duration = Duration::from_millis(100);
const ENOUGH: usize = 20;

/// The mirror must be true again so soon: the probe's second, and what a busy machine adds.
const SOON: Duration = Duration::from_secs(10);

/// What was lost is lost when nothing is left to replay, and nothing has come for so long.
const QUIET: Duration = Duration::from_millis(1500);

/// Runs it on this thread.
pub(super) fn run(cell: Cell, seed: u64, lasts: Duration) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(weather(cell, seed, lasts))
}

async fn weather(cell: Cell, seed: u64, lasts: Duration) -> Report {
    let mut house = House::build(cell).await;
    let flags = house.flags();
    let world = World::start([&flags, &flags]).await;
    let crowd = Crowd::start(&world, Dice::new(seed));
    sleep(BEFORE).await;
    let struck = Instant::now();
    house.strike(cell.fault).await;
    if cell.loss() != Loss::Everything {
        sleep(lasts).await;
    }
    house.mend(cell.fault).await;
    let mended = Instant::now();
    sleep(AFTER).await;
    let work = crowd.stop().await;

    let mut report = Report::new(cell);
    requests(&mut report, &world, &work, struck, mended);
    settle(&mut report, &house, &world, mended).await;
    lost(&mut report, &world, struck, mended);
    use_everything(&mut report, &house, &world).await;
    if !report.is_well() {
        report.complain(world.logs());
    }
    report
}

fn requests(
    report: &mut Report,
    world: &World,
    Work { samples, noise }: &Work,
    struck: Instant,
    mended: Instant,
) {
    report.requests = samples.len();
    report.longest = samples.iter().map(|sample| sample.took).max().unwrap_or_default();
    let nine_of_ten = |since: Duration, least: usize| {
        let after = samples.iter().filter(|sample| sample.at > struck + since && sample.at < mended);
        let mut took: Vec<_> = after.map(|sample| sample.took).collect();
        took.sort();
        took.get(took.len() * 9 / 10).copied().filter(|_| took.len() >= least)
    };
    report.once_known = nine_of_ten(KNOWN, 1);
    let judged = nine_of_ten(KNOWN_EVERYWHERE, ENOUGH);
    if let Some(took) = judged.filter(|took| *took > AT_ONCE + *noise * 2) {
        report.complain(format!(
            "requests took {took:?} when the fault was known; {noise:?} is what others take"
        ));
    }
    let errors: Vec<_> = samples.iter().filter(|sample| sample.error.is_some()).collect();
    report.errors = errors.len();
    if report.longest > LONGEST + *noise * 2 {
        report.complain(format!("a request took {:?}; {noise:?} is what others take", report.longest));
    }
    for sample in errors.into_iter().take(3) {
        let error = sample.error.as_deref().unwrap_or_default();
        let history = sample.by.as_ref().map(|login| world.history(login)).unwrap_or_default();
        report.complain(format!("{error} by {:?}\n{history}", sample.by));
    }
}

/// Waits until the mirror is true, or nothing more can come of itself.
async fn settle(report: &mut Report, house: &House, world: &World, mended: Instant) {
    let mut quiet = Instant::now();
    let mut last = Vec::new();
    loop {
        let differing = world.witness.differing(&house.stored().await);
        if differing.is_empty() {
            report.true_after = Some(mended.elapsed());
            return;
        }
        let now: Vec<_> = differing.iter().map(|one| one.login.session).collect();
        let waiting = world.waiting().await;
        if now != last || waiting > 0 || !world.is_up().await {
            (quiet, last) = (Instant::now(), now);
        }
        let given_up = mended.elapsed() > SOON;
        if quiet.elapsed() > QUIET || given_up {
            report.differing = differing;
            if given_up && waiting > 0 {
                report.complain(format!("{waiting} changes still wait {SOON:?} after the fault"));
            }
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Judges what is gone by what may be gone.
fn lost(report: &mut Report, world: &World, struck: Instant, mended: Instant) {
    let loss = report.cell.loss();
    let second = Duration::from_secs(1);
    let near = |one: &Differing| one.changed + second > struck && one.changed < struck + second;
    let may_be = |one: &&Differing| match loss {
        Loss::Nothing => false,
        Loss::Behind => one.changed + second > struck && one.changed < struck + second / 5,
        Loss::Demoted => one.changed + second > struck && one.changed < mended + second,
        Loss::Everything => one.how == Difference::Missing || near(one),
    };
    let crossed = |one: &&Differing| one.how == Difference::Surplus && world.witness.was_crossed(&one.login);
    let wrong: Vec<_> =
        report.differing.iter().filter(|one| !may_be(one) && !crossed(one)).cloned().collect();
    for one in wrong {
        let since = one.changed.saturating_duration_since(struck);
        let before = struck.saturating_duration_since(one.changed);
        report.complain(format!(
            "{:?} {:?}, changed {since:?} after, {before:?} before the fault\n{}",
            one.how,
            one.login,
            world.history(&one.login)
        ));
    }
}

/// Everybody uses their newest tokens once. Nobody is logged out, and then the mirror is true.
async fn use_everything(report: &mut Report, house: &House, world: &World) {
    for (index, one) in report.differing.clone().into_iter().enumerate() {
        let ask = if one.how == Difference::Surplus { Ask::User } else { Ask::Refresh };
        let sample = Device::of(world, &one.login).ask(ask, index % 2).await;
        sample.error.into_iter().for_each(|error| report.complain(error));
    }
    let asked = Instant::now();
    let mut differing = world.witness.differing(&house.stored().await);
    while !differing.is_empty() && asked.elapsed() < SOON {
        sleep(Duration::from_millis(20)).await;
        differing = world.witness.differing(&house.stored().await);
    }
    if !differing.is_empty() {
        report.complain(format!("not true after everything was used: {differing:?}"));
    }
    let eternal = house.eternal().await;
    if !eternal.is_empty() {
        report.complain(format!("keys that never expire: {eternal:?}"));
    }
}
