//! The scripts, by name.

use ::redis::{Cmd, Pipeline, Script};

/// What a call has room for before it must grow: a record with all that a sign-in tells of.
const ARGUMENTS: usize = 64;
/// As [`ARGUMENTS`]; a user agent can be longer than the rest.
const BYTES: usize = 1024;

/// A script after what it shares with others.
macro_rules! script {
    (reads $file:literal) => {
        Named::new(concat!(include_str!("../common.lua"), include_str!($file)))
    };
    (writes $file:literal) => {
        Named::new(concat!(
            include_str!("../common.lua"),
            include_str!("../carry_out.lua"),
            include_str!($file)
        ))
    };
    (looks_through $file:literal) => {
        Named::new(concat!(include_str!("../common.lua"), include_str!("../living.lua"), include_str!($file)))
    };
    (counts $file:literal) => {
        Named::new(concat!(
            include_str!("../common.lua"),
            include_str!("../carry_out.lua"),
            include_str!("../living.lua"),
            include_str!("../cap.lua"),
            include_str!($file)
        ))
    };
}

/// All scripts. Redis knows them by hash once they were loaded.
#[derive(Debug)]
pub(super) struct Scripts {
    /// Where nobody counts the sessions of a user.
    pub(super) record: Named,
    /// Where somebody does.
    pub(super) record_capped: Named,
    pub(super) end: Named,
    pub(super) suspend: Named,
    pub(super) lower_aal: Named,
    pub(super) sweep: Named,
    pub(super) lookup: Named,
    pub(super) resolve: Named,
    pub(super) list: Named,
    pub(super) survey: Named,
    pub(super) amend: Named,
}

impl Scripts {
    /// Hashes them.
    pub(super) fn new() -> Self {
        Self {
            record: script!(writes "../record.lua"),
            record_capped: script!(counts "../record.lua"),
            end: script!(writes "../end.lua"),
            suspend: script!(writes "../suspend.lua"),
            lower_aal: script!(writes "../lower_aal.lua"),
            sweep: script!(writes "../sweep.lua"),
            lookup: script!(reads "../lookup.lua"),
            resolve: script!(reads "../resolve.lua"),
            list: script!(looks_through "../list.lua"),
            survey: script!(reads "../survey.lua"),
            amend: script!(writes "../amend.lua"),
        }
    }

    /// Loads all of them at once. The transaction is spelled out: of the client library's own only the end is
    /// answered, which does not say what kept it from being made.
    pub(super) fn loading(&self) -> Pipeline {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("MULTI");
        let Self {
            record,
            record_capped,
            end,
            suspend,
            lower_aal,
            sweep,
            lookup,
            resolve,
            list,
            survey,
            amend,
        } = self;
        for script in
            [record, record_capped, end, suspend, lower_aal, sweep, lookup, resolve, list, survey, amend]
        {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(script.code);
        }
        pipeline.cmd("EXEC");
        pipeline
    }
}

/// One script.
#[derive(Debug)]
pub(super) struct Named {
    code: &'static str,
    hash: String,
}

impl Named {
    fn new(code: &'static str) -> Self {
        let hash = Script::new(code).get_hash().to_owned();
        Self { code, hash }
    }

    /// A call of it, to which arguments are to be added.
    pub(super) fn call(&self, keys: &[String]) -> Cmd {
        let mut call = Cmd::with_capacity(ARGUMENTS, BYTES);
        call.arg("EVALSHA").arg(&self.hash).arg(keys.len()).arg(keys);
        call
    }
}
