//! Order through memory: what atomics and other strong accesses pass on between threads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::events::Who;
use super::Order;
use super::view::{Clocks, Foreign, View, both, join_foreign, raise};

/// What CTAs of a launch have published to each other through atomics, by address.
#[derive(Default)]
pub struct Published {
    any: AtomicBool,
    words: Mutex<HashMap<u64, Foreign>>,
}

impl Published {
    /// Forgets everything, between launches.
    pub fn clear(&mut self) {
        self.words.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        *self.any.get_mut() = false;
    }
}

/// Where something is published.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    Shared { cta: u32, at: u64 },
    Global { published: &'a Published, address: u64 },
}

impl Order {
    /// `who` writes `place` so that others may learn of it: `release` passes on all
    /// it knows, otherwise what a fence stands behind.
    pub fn publish(&mut self, who: Who, place: Place<'_>, release: bool) {
        if !self.on {
            return;
        }
        let a = self.actor(who);
        let clock = self.clocks[a];
        let view = &mut self.views[a];
        if release {
            view.released.clone_from(&view.known);
            raise(&mut view.released, a, clock);
            self.tick(a);
        }
        let view = &self.views[a];
        if view.released.iter().all(|&c| c == 0) && view.foreign.is_none() {
            return;
        }
        match place {
            Place::Shared { cta, at } => {
                let word = self.words.entry((cta, at)).or_default();
                word.join(&view.behind_fence());
            }
            Place::Global { published, address } => {
                let mut own = Foreign::default();
                let fenced = both(&view.fenced, &view.released);
                let mapped = both(&view.mapped, &view.released);
                for cta in 0..self.ctas {
                    let from = (cta * self.warps) as usize;
                    let of = |list: &[u32]| {
                        let end = (from + self.warps as usize).min(list.len());
                        list.get(from..end).unwrap_or_default().to_vec()
                    };
                    let clocks = Clocks {
                        warps: of(&view.released),
                        engines: Vec::new(),
                        fenced: of(&fenced),
                        mapped: of(&mapped),
                    };
                    own.insert(self.number + u64::from(cta), clocks);
                }
                let engines = view.released.get((self.ctas * self.warps) as usize..);
                if let Some(first) = own.get_mut(&self.number) {
                    first.engines = engines.unwrap_or_default().to_vec();
                }
                published.any.store(true, Relaxed);
                let mut words = published.words.lock().unwrap_or_else(PoisonError::into_inner);
                let word = words.entry(address).or_default();
                join_foreign(word, &own);
                if let Some(foreign) = &view.foreign {
                    join_foreign(word, foreign);
                }
            }
        }
    }

    /// `who` has read `place`, to which others may have published; without `acquire` it counts
    /// once a fence follows.
    pub fn learn(&mut self, who: Who, place: Place<'_>, acquire: bool) {
        if !self.on {
            return;
        }
        let learnt = match place {
            Place::Shared { cta, at } => match self.words.get(&(cta, at)) {
                Some(view) => view.clone(),
                None => return,
            },
            Place::Global { published, address } => {
                if !published.any.load(Relaxed) {
                    return;
                }
                let words = published.words.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(word) = words.get(&address) else { return };
                let mut view = View::default();
                let mut foreign = word.clone();
                for cta in 0..self.ctas {
                    let Some(own) = foreign.remove(&(self.number + u64::from(cta))) else {
                        continue;
                    };
                    let all = (self.ctas * self.warps) as usize;
                    let first = (cta * self.warps) as usize;
                    let put = |list: &mut Vec<u32>, first: usize, clocks: &[u32]| {
                        for (i, &clock) in clocks.iter().enumerate() {
                            raise(list, first + i, clock);
                        }
                    };
                    put(&mut view.known, first, &own.warps);
                    put(&mut view.known, all, &own.engines);
                    put(&mut view.fenced, first, &own.fenced);
                    put(&mut view.mapped, first, &own.mapped);
                }
                view.foreign = (!foreign.is_empty()).then(|| Arc::new(foreign));
                view
            }
        };
        let a = self.actor(who);
        if acquire {
            self.views[a].join(&learnt);
        } else {
            self.pending[a].local.join(&learnt);
            self.pending[a].any = true;
        }
    }
}
