//! Which checks of order are on.

/// Checks of order that can be switched off, each with the faults it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// Races between warps, CTAs and engines.
    pub races: bool,
    /// Lanes of a warp that share words without `bar.warp.sync`.
    pub lanes: bool,
    /// Missing `fence.proxy.async` and `fence.mbarrier_init`.
    pub proxies: bool,
}

impl Checks {
    pub const ALL: Checks = Checks { races: true, lanes: true, proxies: true };
    pub const NONE: Checks = Checks { races: false, lanes: false, proxies: false };
    /// Names as [`Checks::without`] takes them.
    pub const NAMES: [&str; 3] = ["races", "lanes", "proxies"];

    pub fn any(self) -> bool {
        self.races || self.lanes || self.proxies
    }

    /// Switches one off.
    ///
    /// # Errors
    /// A name that is none of [`Checks::NAMES`].
    pub fn without(mut self, name: &str) -> Result<Checks, String> {
        match name {
            "races" => self.races = false,
            "lanes" => self.lanes = false,
            "proxies" => self.proxies = false,
            "all" => self = Checks::NONE,
            _ => {
                return Err(format!(
                    "no check is called {name:?}; {} and all can be left out",
                    Checks::NAMES.join(", ")
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
