//! Products of warpgroups on the tensor cores.

use super::path::{Cause, Path};
use super::sm::Simulation;

/// Cycles by which a product with A in registers ends later: on an H200 a group of products returns
/// 72 cycles after the time that its products take, or 63 with A in shared memory.
const FROM_REGISTERS: f64 = 9.0;

/// One product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product {
    /// Cycles that it keeps the tensor cores.
    pub cycles: f64,
    /// A is in registers.
    pub registers: bool,
}

/// Four warps that multiply together.
#[derive(Default)]
pub struct Group {
    pub sm: usize,
    /// Warps of it.
    pub warps: u32,
    /// For each product, how many warps have issued it, and the path of the last.
    issued: Vec<(u32, Option<Product>, Path)>,
    /// When each product that has begun is done.
    pub done: Vec<(f64, Path)>,
    /// The turn of its last product.
    turn: u64,
    /// Warps that wait for one that has not begun.
    pub asleep: Vec<u32>,
}

impl Group {
    /// A warp issues product `n`. True if all warps have.
    pub fn issue(&mut self, n: usize, product: Product, path: Path) -> bool {
        if self.issued.len() <= n {
            self.issued.resize_with(n + 1, || (0, None, Path::default()));
        }
        self.issued[n].0 += 1;
        let whole = self.issued[n].0 == self.warps;
        if whole {
            (self.issued[n].1, self.issued[n].2) = (Some(product), path);
        }
        whole
    }

    /// The product that is to begin next, if all warps have issued it.
    fn next(&self) -> Option<Product> {
        self.issued.get(self.done.len()).and_then(|i| i.1)
    }
}

impl Simulation<'_> {
    /// Begins the next product of a multiprocessor, if it can: warpgroups take turns. Warps do not
    /// wait for that: on an H200 a warpgroup issues 8 products while the first three run.
    pub fn multiply(&mut self, sm: usize, now: f64) {
        let waiting = self.groups.iter().enumerate().filter(|(_, g)| g.sm == sm);
        let waiting = waiting.filter_map(|(i, g)| g.next().map(|product| (i, g.turn, product)));
        let Some((next, _, product)) = waiting.min_by_key(|w| w.1) else { return };
        let m = &mut self.sms[sm];
        if m.tensor > now {
            if !m.watched {
                m.watched = true;
                let at = m.tensor;
                let watcher = self.warps.len() + sm;
                self.come_back(watcher, at);
            }
            return;
        }
        m.tensor = now + product.cycles;
        let late = if product.registers { FROM_REGISTERS } else { 0.0 };
        let end = m.tensor + self.ports.product_latency + late;
        let group = &mut self.groups[next];
        let n = group.done.len();
        let mut path = std::mem::take(&mut group.issued[n].2);
        // Behind another product of the group.
        if let Some((_, before)) = group.done.last().filter(|(end, _)| *end > now) {
            path = before.clone();
        }
        path.wait_until(end, Cause::Products);
        group.done.push((end, path));
        group.turn = self.issued;
        for w in std::mem::take(&mut group.asleep) {
            self.come_back(w as usize, now);
        }
        self.multiply(sm, now);
    }
}
