//! The scripts, by name.

use ::redis::{Cmd, Pipeline, Script};

/// All scripts. Redis knows them by hash once they were loaded.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) record: Named,
    pub(super) end: Named,
    pub(super) suspend: Named,
    pub(super) lower_aal: Named,
    pub(super) lookup: Named,
    pub(super) amend: Named,
}

impl Scripts {
    /// Hashes them.
    pub(super) fn new() -> Self {
        Self {
            record: Named::new(include_str!("../record.lua")),
            end: Named::new(include_str!("../end.lua")),
            suspend: Named::new(include_str!("../suspend.lua")),
            lower_aal: Named::new(include_str!("../lower_aal.lua")),
            lookup: Named::new(include_str!("../lookup.lua")),
            amend: Named::new(include_str!("../amend.lua")),
        }
    }

    /// Loads all of them at once.
    pub(super) fn loading(&self) -> Pipeline {
        let mut pipeline = Pipeline::new();
        pipeline.atomic();
        let all = [&self.record, &self.end, &self.suspend, &self.lower_aal, &self.lookup, &self.amend];
        for script in all {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(script.code);
        }
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
        let mut call = Cmd::new();
        call.arg("EVALSHA").arg(&self.hash).arg(keys.len()).arg(keys);
        call
    }
}
