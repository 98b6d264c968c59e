//! Which checks are on.

/// Checks that can be left out, each with the faults that it finds. What they forbid leaves a GPU
/// in no known state; without a check, the emulator goes on as its field says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// Races between warps, CTAs and engines.
    pub races: bool,
    /// Lanes of a warp that share words without `bar.warp.sync`.
    pub lanes: bool,
    /// Missing `fence.proxy.async` and `fence.mbarrier_init`.
    pub proxies: bool,
    /// Memory that asynchronous operations still use; without it, what is there is read.
    pub in_flight: bool,
    /// Registers of products: use before the wait, missing `wgmma.fence`.
    pub products: bool,
    /// Reads of what nothing has written; without it, what is there is read.
    pub uninitialised: bool,
    /// Bytes that copies bring and `expect_tx` announces; without it, a phase is over once they
    /// agree.
    pub transactions: bool,
    /// Waits for a phase of an mbarrier that a later one of its parity may be taken for.
    pub phases: bool,
    /// `setmaxnreg` in the wrong direction, or uneven within a warpgroup.
    pub setmaxnreg: bool,
    /// Use of the shared memory of CTAs that have exited; without it, it stays as it was left.
    pub exits: bool,
}

/// A check by its name.
type Named = (&'static str, fn(&mut Checks) -> &mut bool);

const NAMED: [Named; 10] = [
    ("races", |c| &mut c.races),
    ("lanes", |c| &mut c.lanes),
    ("proxies", |c| &mut c.proxies),
    ("in_flight", |c| &mut c.in_flight),
    ("products", |c| &mut c.products),
    ("uninitialised", |c| &mut c.uninitialised),
    ("transactions", |c| &mut c.transactions),
    ("phases", |c| &mut c.phases),
    ("setmaxnreg", |c| &mut c.setmaxnreg),
    ("exits", |c| &mut c.exits),
];

impl Checks {
    pub const ALL: Checks = Checks {
        races: true,
        lanes: true,
        proxies: true,
        in_flight: true,
        products: true,
        uninitialised: true,
        transactions: true,
        phases: true,
        setmaxnreg: true,
        exits: true,
    };
    /// All but those of order, which take time.
    pub const UNORDERED: Checks =
        Checks { races: false, lanes: false, proxies: false, ..Checks::ALL };
    pub const NONE: Checks = Checks {
        in_flight: false,
        products: false,
        uninitialised: false,
        transactions: false,
        phases: false,
        setmaxnreg: false,
        exits: false,
        ..Checks::UNORDERED
    };

    /// Names as [`Checks::without`] takes them.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMED.iter().map(|(name, _)| *name)
    }

    /// Some check of order is on.
    pub fn ordered(self) -> bool {
        self.races || self.lanes || self.proxies
    }

    /// Switches the check of this name off, or all of them.
    ///
    /// # Errors
    /// A name that is neither `all` nor of [`Checks::names`].
    pub fn without(mut self, name: &str) -> Result<Checks, String> {
        if name == "all" {
            return Ok(Checks::NONE);
        }
        match NAMED.iter().find(|(n, _)| *n == name) {
            Some((_, check)) => *check(&mut self) = false,
            None => {
                return Err(format!(
                    "no check is called {name:?}; {} and all can be left out",
                    Checks::names().collect::<Vec<_>>().join(", ")
                ));
            }
        }
        Ok(self)
    }
}

impl Default for Checks {
    fn default() -> Checks {
        Checks::ALL
    }
}

#[cfg(test)]
mod tests {
    use super::Checks;

    #[test]
    fn each_name_leaves_out_its_check() {
        let all = Checks::names().try_fold(Checks::ALL, Checks::without).expect("known names");
        assert_eq!((all, Checks::ALL.without("all")), (Checks::NONE, Ok(Checks::NONE)));
        let each: std::collections::HashSet<String> =
            Checks::names().map(|n| format!("{:?}", Checks::ALL.without(n))).collect();
        assert_eq!(each.len(), Checks::names().count());
        assert!(Checks::ALL.without("bounds").is_err_and(|e| e.contains("setmaxnreg")));
    }
}
