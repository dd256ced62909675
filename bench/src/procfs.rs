//! What the kernel knows about a process: CPU time, memory, children.

use std::{collections::BTreeMap, fs, io, time::Duration};

/// A process and its descendants at the time of looking: nginx's worker is a child.
#[derive(Clone, Debug)]
pub struct Family(Vec<u32>);

/// CPU time used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// In user space.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

impl CpuTime {
    /// User and system together.
    pub fn total(self) -> Duration {
        self.user + self.system
    }

    /// The time since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

impl Family {
    /// The process alone.
    pub fn single(pid: u32) -> Self {
        Self(vec![pid])
    }

    /// The process and everything it started.
    pub fn of(pid: u32) -> io::Result<Self> {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // a process may end while we look
            if let Ok(stat) = Stat::read(process) {
                children.entry(stat.parent).or_default().push(process);
            }
        }
        let mut family = vec![pid];
        let mut next = 0;
        while let Some(member) = family.get(next) {
            family.extend(children.remove(member).unwrap_or_default());
            next += 1;
        }
        Ok(Self(family))
    }

    /// Their ids, with commas between them.
    pub fn list(&self) -> String {
        let ids: Vec<_> = self.0.iter().map(u32::to_string).collect();
        ids.join(",")
    }

    /// CPU time of all of them, every thread, ended ones included.
    pub fn cpu_time(&self) -> io::Result<CpuTime> {
        let mut sum = CpuTime::default();
        for pid in &self.0 {
            let stat = Stat::read(*pid)?;
            sum.user += stat.user;
            sum.system += stat.system;
        }
        Ok(sum)
    }

    /// Resident bytes of the largest one: the process that serves. (A sum would count nginx's pages, which
    /// master and worker share, twice.)
    pub fn resident(&self) -> io::Result<u64> {
        let sizes: Result<Vec<_>, _> = self.0.iter().map(|pid| resident(*pid)).collect();
        Ok(sizes?.into_iter().max().unwrap_or(0))
    }
}

struct Stat {
    parent: u32,
    user: Duration,
    system: Duration,
}

impl Stat {
    /// `/proc/PID/stat`, see proc(5).
    fn read(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not as proc(5) says")))
    }

    fn parse(text: &str) -> Option<Self> {
        // the name, in parentheses, may hold anything
        let (_, fields) = text.rsplit_once(')')?;
        let field = |number: usize| fields.split_ascii_whitespace().nth(number - 3);
        let ticks = |number| field(number)?.parse::<u64>().ok().map(duration_of);
        Some(Self { parent: field(4)?.parse().ok()?, user: ticks(14)?, system: ticks(15)? })
    }
}

/// How long a core has not been idle: `/proc/stat`, see proc(5).
pub fn core_time(core: usize) -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    parse_core(&text, core).ok_or_else(|| io::Error::other("/proc/stat is not as proc(5) says"))
}

fn parse_core(text: &str, core: usize) -> Option<Duration> {
    const IDLE: [usize; 2] = [3, 4];
    // guests are counted as user time already
    const FIELDS: usize = 8;
    let name = format!("cpu{core} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name))?;
    let fields = line.split_ascii_whitespace().take(FIELDS).enumerate();
    let busy = fields.filter(|(place, _)| !IDLE.contains(place));
    let ticks: Result<Vec<u64>, _> = busy.map(|(_, ticks)| ticks.parse()).collect();
    Some(duration_of(ticks.ok()?.iter().sum()))
}

fn duration_of(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second().max(1))
}

fn resident(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other(format!("/proc/{pid}/status has no VmRSS")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 3 7 7 0 -1 0 0 0 0 0 150 25 0 0 20 0 1 0";
        let parsed = Stat::parse(stat).unwrap();
        assert_eq!(parsed.parent, 3);
        assert_eq!(parsed.user, duration_of(150));
        assert_eq!(parsed.system, duration_of(25));
    }

    #[test]
    fn a_core_is_busy_with_all_but_waiting() {
        let stat = "cpu  1 1 1 1\ncpu0 10 20 30 1000 2000 1 2 3 500 500\ncpu1 0 0 0 0 0 0 0 0 0 0\n";
        assert_eq!(parse_core(stat, 0), Some(duration_of(66)));
        assert_eq!(parse_core(stat, 2), None);
    }

    #[test]
    fn this_process_is_in_its_own_family() {
        let pid = std::process::id();
        let family = Family::of(pid).unwrap();
        assert_eq!(family.0.first(), Some(&pid));
        assert!(family.resident().unwrap() > 100_000);
    }
}
