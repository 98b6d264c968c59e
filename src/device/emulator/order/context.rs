//! How the instructions of a warp report their accesses.

use std::collections::HashMap;

use super::super::access::lanes;
use super::super::events::{Object, Who};
use super::super::memory::{self, Global, Region, Shared};
use super::super::program::{Extra, Mem, Strength};
use super::super::ptx::ast::Space;
use super::super::trap::{Fault, FaultKind};
use super::super::warp::Context;
use super::{ATOMIC, BulkDoes, BulkSide, GlobalShadow, Place, STRONG, report};

fn flags(mem: &Mem) -> u64 {
    let atomic = matches!(mem.extra, Extra::Atom { .. });
    match (atomic, mem.strength.strong) {
        (true, _) => ATOMIC,
        (false, true) => STRONG,
        _ => 0,
    }
}

impl Context<'_> {
    /// Lanes of a warp of this CTA, at instruction `pc`.
    #[inline(always)]
    pub fn who(&self, warp: u32, lanes: u32, pc: usize) -> Who {
        Who { cta: self.rank, warp, lanes, pc }
    }

    /// Whether the order of accesses is checked.
    #[inline(always)]
    pub fn ordered(&self) -> bool {
        self.events.order.on()
    }

    /// Called after a memory refuses a read. A read of something unwritten may turn out to be a
    /// race, so the fault waits and what is there is read.
    ///
    /// # Errors
    /// The fault itself if it cannot wait: it is of another kind, or races are not checked.
    #[cold]
    pub fn excuse(&mut self, fault: Box<Fault>, who: Who) -> Result<(), Box<Fault>> {
        match fault.kind {
            FaultKind::Uninitialised if self.ordered() && self.events.order.checks.races => {
                self.events.order.defer(fault, who);
                Ok(())
            }
            _ => Err(fault),
        }
    }

    /// A load from shared memory, all addresses being inside.
    ///
    /// # Errors
    /// A write that nothing orders before it.
    #[inline(always)]
    pub fn note_shared_load(
        &mut self,
        who: Who,
        mem: &Mem,
        address: &[u64; 32],
        bytes: u32,
    ) -> Result<(), Box<Fault>> {
        if !self.ordered() {
            return Ok(());
        }
        self.events.order.shared_read(who, self.rank, address, bytes, flags(mem))?;
        if mem.strength.strong {
            self.learn(who, Space::Shared, address, mem.strength);
        }
        Ok(())
    }

    /// A store or atomic to shared memory, before it happens. True if lanes write to one place.
    ///
    /// # Errors
    /// An access that nothing orders before it.
    #[inline(always)]
    pub fn note_shared_store(
        &mut self,
        who: Who,
        mem: &Mem,
        address: &[u64; 32],
        bytes: u32,
        idle: &dyn Fn(&Shared, u32) -> bool,
    ) -> Result<bool, Box<Fault>> {
        if !self.ordered() {
            return Ok(false);
        }
        let flags = flags(mem);
        let (order, shared) = (&mut self.events.order, &*self.shared);
        let idle = &|lane| idle(shared, lane);
        let overlap = order.shared_write(who, self.rank, address, bytes, flags, idle)?;
        if mem.strength.strong {
            if flags == ATOMIC {
                self.learn(who, Space::Shared, address, mem.strength);
            }
            self.publish(who, Space::Shared, address, mem.strength);
        }
        Ok(overlap && flags != ATOMIC && self.events.order.checks.races)
    }

    /// One lane's access to global memory, before it happens: a write if there is an `idle`, which
    /// says whether it changes nothing; else a read.
    ///
    /// # Errors
    /// An access that nothing orders before it.
    #[inline(always)]
    pub fn note_global(
        &self,
        who: Who,
        lane: u32,
        shadow: Option<&GlobalShadow>,
        mem: &Mem,
        (at, bytes): (u64, u32),
        idle: Option<&dyn Fn() -> bool>,
    ) -> Result<(), Box<Fault>> {
        match shadow {
            Some(shadow) if self.ordered() => {
                let (span, write) = ((at, bytes), idle.is_some());
                let idle = idle.unwrap_or(&|| false);
                self.events.order.global((who, lane), shadow, span, write, flags(mem), idle)
            }
            _ => Ok(()),
        }
    }

    /// The side of a bulk copy that lies in global memory, as it begins: runs of a buffer, and the
    /// object and phase that tell its end.
    ///
    /// # Errors
    /// An access that nothing, or no proxy fence, orders before it.
    pub fn note_bulk(
        &mut self,
        who: Who,
        region: &Region,
        runs: &[(usize, u64, u64)],
        does: BulkDoes,
        (object, phase): (Object, u64),
    ) -> Result<(), Box<Fault>> {
        match &region.order {
            Some(shadow) if self.ordered() => {
                let side = BulkSide { shadow, runs, does, object, phase };
                self.events.order.bulk(who, &side)
            }
            _ => Ok(()),
        }
    }

    /// A bulk copy takes the tensor map at a global address.
    ///
    /// # Errors
    /// A write of the map that nothing, or no fence of its proxy, orders before it.
    pub fn note_map(
        &mut self,
        who: Who,
        address: u64,
        end: (Object, u64),
    ) -> Result<(), Box<Fault>> {
        match self.global.region(address) {
            Some((region, at)) if memory::window(address).is_none() => {
                self.note_bulk(who, region, &[(0, at, 128)], BulkDoes::ReadMap(address), end)
            }
            _ => Ok(()),
        }
    }

    /// One lane's load from the shared memory of CTA `rank` of the cluster, inside of it.
    ///
    /// # Errors
    /// A write that nothing orders before it.
    pub fn note_peer_load(
        &mut self,
        who: Who,
        mem: &Mem,
        (rank, at): (u32, u64),
        bytes: u32,
    ) -> Result<(), Box<Fault>> {
        if !self.ordered() {
            return Ok(());
        }
        let order = &mut self.events.order;
        order.shared_read(who, rank, &[at; 32], bytes, flags(mem))?;
        if mem.strength.strong {
            order.learn(who, Place::Shared { cta: rank, at }, mem.strength.acquire);
        }
        Ok(())
    }

    /// As [`Context::note_peer_load`], of a store or atomic. `idle`: it writes what is there already.
    ///
    /// # Errors
    /// An access that nothing orders before it.
    pub fn note_peer_store(
        &mut self,
        who: Who,
        mem: &Mem,
        (rank, at): (u32, u64),
        bytes: u32,
        idle: bool,
    ) -> Result<(), Box<Fault>> {
        if !self.ordered() {
            return Ok(());
        }
        let (order, flags) = (&mut self.events.order, flags(mem));
        order.shared_write(who, rank, &[at; 32], bytes, flags, &|_| idle)?;
        if mem.strength.strong {
            let place = Place::Shared { cta: rank, at };
            if flags == ATOMIC {
                order.learn(who, place, mem.strength.acquire);
            }
            order.publish(who, place, mem.strength.release);
        }
        Ok(())
    }

    /// A strong load: `who` learns what others have published at its addresses.
    #[cold]
    pub fn learn(&mut self, who: Who, space: Space, address: &[u64; 32], how: Strength) {
        for lane in lanes(who.lanes) {
            let place = place(self.global, self.rank, space, address[lane as usize], how);
            self.events.order.learn(who, place, how.acquire);
        }
    }

    /// A strong store or atomic: `who` publishes at its addresses.
    #[cold]
    pub fn publish(&mut self, who: Who, space: Space, address: &[u64; 32], how: Strength) {
        for lane in lanes(who.lanes) {
            let place = place(self.global, self.rank, space, address[lane as usize], how);
            self.events.order.publish(who, place, how.release);
        }
    }
}

/// Where an address is published. An access with the scope of a CTA stays in its CTA.
fn place<'a>(
    global: &'a Global,
    rank: u32,
    space: Space,
    address: u64,
    how: Strength,
) -> Place<'a> {
    match space {
        Space::Shared => Place::Shared { cta: rank, at: address },
        _ if how.near => Place::Shared { cta: u32::MAX, at: address },
        _ => Place::Global { published: &global.published, address },
    }
}

/// Two lanes of one store instruction must not write different values to one byte. `value` gives
/// element `k` of a lane.
///
/// # Errors
/// The first byte where they do, with both lanes.
pub fn collide(
    space: &str,
    mem: &Mem,
    address: &[u64; 32],
    mask: u32,
    value: impl Fn(u32, u32) -> u64,
    describe: &dyn Fn(u64) -> String,
) -> Result<(), Box<Fault>> {
    if agree(address, mask, u64::from(mem.size * mem.n), |lane, other| {
        (0..mem.n).all(|k| value(k, lane) == value(k, other))
    }) {
        return Ok(());
    }
    let mut bytes: HashMap<u64, (u32, u8)> = HashMap::new();
    for lane in lanes(mask) {
        for k in 0..mem.n {
            let v = value(k, lane).to_le_bytes();
            let from = address[lane as usize] + u64::from(k * mem.size);
            for (i, &byte) in v[..mem.size as usize].iter().enumerate() {
                match bytes.insert(from + i as u64, (lane, byte)) {
                    Some((other, was)) if was != byte => {
                        let at = describe(from + i as u64);
                        return Err(report::lanes_collide(space, lane, other, &at));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// Whether any two lanes' accesses of `bytes` lie apart, or at one place with the `same` value.
/// Stores of many lanes nearly always are so, in whatever order; to look byte by byte costs much
/// more.
fn agree(address: &[u64; 32], mask: u32, bytes: u64, same: impl Fn(u32, u32) -> bool) -> bool {
    let mut order = [(0u64, 0u32); 32];
    let mut n = 0;
    for lane in lanes(mask) {
        order[n] = (address[lane as usize], lane);
        n += 1;
    }
    let order = &mut order[..n];
    order.sort_unstable();
    order.windows(2).all(|pair| {
        let [(at, lane), (next, other)] = [pair[0], pair[1]];
        next - at >= bytes || next == at && same(lane, other)
    })
}

/// Whether each lane's address lies behind the one before it: then no two overlap.
#[inline(always)]
pub fn ascending(address: &[u64; 32], mask: u32, bytes: u32) -> bool {
    let mut least = 0;
    lanes(mask).all(|lane| {
        let at = address[lane as usize];
        let ok = at >= least;
        least = at + u64::from(bytes);
        ok
    })
}

#[cfg(test)]
mod tests {
    use super::agree;

    #[test]
    fn stores_of_lanes_agree() {
        let all = |f: &dyn Fn(u64) -> u64, bytes, value: &dyn Fn(u32) -> u32| {
            let address = std::array::from_fn(|i| f(i as u64));
            agree(&address, u32::MAX, bytes, |a, b| value(a) == value(b))
        };
        let own = &|lane| lane;
        assert!(all(&|i| 4 * (31 - i), 4, own));
        assert!(all(&|i| 4 * (i * 7 % 32), 4, own));
        assert!(all(&|_| 64, 4, &|_| 5));
        assert!(all(&|i| 8 * (i % 4), 8, &|lane| lane % 4));
        assert!(!all(&|i| 8 * (i % 4), 8, own));
        // Lanes 3 and 30 alone meet.
        assert!(!all(&|i| if i == 30 { 12 } else { 4 * i }, 4, own));
        // Lanes that meet in part are looked at byte by byte.
        assert!(!all(&|i| 8 * (31 - i) + i % 2 * 4, 8, &|_| 5));
        assert!(agree(&[0; 32], 1 << 9, 4, |_, _| false));
    }
}
