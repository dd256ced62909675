//! Hours of work with a fault every few seconds, and what is left behind: nothing (contract I8, I10).
//!
//! - `SOAK_SECONDS`: how long, else 12; `make soak` takes an hour
//! - `SOAK_SEED`: which faults, when, and what everybody does; else the time

use std::time::{Duration, Instant};

use gotrue_sidecar::session::Seconds;
use tokio::time::sleep;

use super::{
    Cell, Fault, Shape,
    crowd::{Ask, Crowd, Device},
    house::House,
    now, setting,
    world::World,
};
use crate::support::{
    dice::Dice,
    process::{Process, eventually},
};

/// Every fault that one server can have again and again.
const FAULTS: [Fault; 9] = [
    Fault::Kill,
    Fault::Stop,
    Fault::HalfOpen,
    Fault::Reset,
    Fault::Slow,
    Fault::ReadOnly,
    Fault::OutOfMemory,
    Fault::Password,
    Fault::Flush,
];

/// Access tokens and sessions live for so long, so that keys are gone while the test can wait for it.
const LIFE: Seconds = 20;

/// No tombstone lives longer: the least of a session that is known to have ended, and what clocks differ by.
const GONE: Duration = Duration::from_secs(120 + 60);

/// From here on the end waits until the last key is gone.
const LONG: Duration = Duration::from_secs(5 * 60);

/// People work so long before what they leave behind is measured for the first time.
const WARM_UP: Duration = Duration::from_secs(4);

/// What a replica has at rest may grow by so much: an allocator keeps what a burst took.
const MORE_MEMORY: u64 = 24 * 1024 * 1024;

/// A few connections that have not been idle for long enough.
const MORE_FILES: usize = 6;
const MORE_TASKS: u64 = 8;

#[tokio::test]
async fn after_many_faults_everything_is_as_before() {
    let lasts = Duration::from_secs(setting("SOAK_SECONDS").unwrap_or(12));
    let seed: u64 = setting("SOAK_SEED").unwrap_or_else(now);
    println!("SOAK_SEED={seed} SOAK_SECONDS={}", lasts.as_secs());
    let mut house = House::build(Cell { shape: Shape::Standalone, fault: Fault::Kill }).await;
    let mut flags = house.flags();
    flags.push(format!("--session-ttl={LIFE}s"));
    let world = World::start_with(LIFE, [&flags, &flags]).await;
    let mut dice = Dice::new(seed);

    let crowd = Crowd::start(&world, dice.fork());
    sleep(WARM_UP).await;
    finish(crowd, &world, &house).await;
    let before = [Vitals::of(&world.replicas[0]).await, Vitals::of(&world.replicas[1]).await];
    println!("before: {before:?}");

    let crowd = Crowd::start(&world, dice.fork());
    let (began, mut faults) = (Instant::now(), 0);
    while began.elapsed() < lasts {
        let fault = *dice.one_of(&FAULTS).unwrap();
        sleep(millis(&mut dice, 500, 3000)).await;
        house.strike(fault).await;
        sleep(millis(&mut dice, 200, 2500)).await;
        house.mend(fault).await;
        faults += 1;
        world.upstream.forget();
        world.witness.forget();
        if let Some(complaint) = crowd.complaint() {
            panic!("after {:?}, {fault:?}: {complaint}\n{}", began.elapsed(), world.logs());
        }
        if faults % 100 == 0 {
            let vitals = [Vitals::of(&world.replicas[0]).await, Vitals::of(&world.replicas[1]).await];
            println!("{:?}: {faults} faults, {vitals:?}, {} keys", began.elapsed(), house.keys().await);
        }
    }
    let requests = finish(crowd, &world, &house).await;
    println!("{requests} requests, {faults} faults in {:?}", began.elapsed());
    for (process, before) in world.replicas.iter().zip(before) {
        before.are_back(process).await;
    }
    let none_wait = async || (world.waiting().await == 0).then_some(());
    eventually(none_wait, || format!("changes still wait\n{}", world.logs())).await;
    assert_eq!(house.eternal().await, <[String; 0]>::default(), "keys that never expire");
    if lasts >= LONG {
        let rested = Instant::now();
        while house.keys().await > 0 {
            assert!(
                rested.elapsed() < GONE + Duration::from_secs(60),
                "{} keys are left",
                house.keys().await
            );
            sleep(Duration::from_secs(1)).await;
        }
    }
}

fn millis(dice: &mut Dice, from: usize, to: usize) -> Duration {
    Duration::from_millis((from + dice.below(to - from)).try_into().unwrap())
}

/// People stop, the mirror becomes true, everybody signs out, and no session is left.
async fn finish(crowd: Crowd, world: &World, house: &House) -> usize {
    let samples = crowd.stop().await.samples;
    let errors: Vec<_> = samples.iter().filter_map(|sample| sample.error.as_ref()).collect();
    assert!(errors.is_empty(), "{errors:?}\n{}", world.logs());
    let up = async || world.is_up().await.then_some(());
    eventually(up, || format!("the store is not up again\n{}", world.logs())).await;
    // what a flush forgot is known again after it was used
    for one in world.witness.differing(&house.stored().await) {
        Device::of(world, &one.login).ask(Ask::User, 0).await;
    }
    for login in world.witness.live().values() {
        let sample = Device::of(world, login).ask(Ask::Refresh, 1).await;
        assert_eq!(sample.error, None);
    }
    let is_true = async || world.witness.differing(&house.stored().await).is_empty().then_some(());
    eventually(is_true, || format!("the mirror is not true\n{}", world.logs())).await;
    for login in world.witness.live().values() {
        let sample = Device::of(world, login).ask(Ask::Logout("?scope=local"), 0).await;
        assert_eq!(sample.error, None);
    }
    let nobody = async || house.stored().await.is_empty().then_some(());
    eventually(nobody, || "sessions are left".to_owned()).await;
    samples.len()
}

/// What a process takes.
#[derive(Clone, Copy, Debug)]
struct Vitals {
    /// Bytes.
    resident: u64,
    files: usize,
    tasks: u64,
}

impl Vitals {
    async fn of(process: &Process) -> Self {
        let status = process.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        let tasks = process.metric("gotrue_sidecar_tasks").await;
        Self { resident: kib * 1024, files: process.open_files(), tasks }
    }

    /// Waits until it takes no more than this again.
    async fn are_back(self, process: &Process) {
        let back = async || {
            let now = Self::of(process).await;
            let same = now.resident <= self.resident + MORE_MEMORY
                && now.files <= self.files + MORE_FILES
                && now.tasks <= self.tasks + MORE_TASKS;
            if same {
                println!("after: {now:?}");
            }
            same.then_some(())
        };
        let rest = || {
            let files = process.open_files();
            format!("{self:?} before; {files} files now, and\n{}", process.proc("status"))
        };
        eventually(back, rest).await;
    }
}
