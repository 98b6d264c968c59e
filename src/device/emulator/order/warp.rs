//! The order of a warp's loads, stores, atomics and copies, looked at before they happen.

use super::super::access::lanes;
use super::super::memory::{Global, Region, Shared};
use super::super::program::Mem;
use super::super::ptx::ast::Space;
use super::super::trap::Fault;
use super::super::warp::{Context, Warp};
use super::context::{ascending, collide};

/// The watched buffer that holds the whole of an access, and the place in it. All else is for the
/// access itself to refuse.
fn watched(global: &Global, address: u64, bytes: u32) -> Option<(&Region, u64)> {
    let (r, at) = global.region(address)?;
    let inside = at < r.bytes
        && at + u64::from(bytes) <= r.bytes
        && address.is_multiple_of(4.min(u64::from(bytes)));
    (inside && r.order.is_some()).then_some((r, at))
}

impl Warp {
    /// Before a load of the lanes of `mask` from one space.
    ///
    /// # Errors
    /// A write that nothing orders before it.
    pub fn order_load(
        &self,
        cx: &mut Context<'_>,
        mem: &Mem,
        space: Space,
        address: &[u64; 32],
        pc: usize,
        mask: u32,
    ) -> Result<(), Box<Fault>> {
        let (who, bytes) = (cx.who(self.id, mask, pc), mem.size * mem.n);
        match space {
            Space::Shared => cx.note_shared_load(who, mem, address, bytes),
            Space::Global => {
                for lane in lanes(mask) {
                    if let Some((r, at)) = watched(cx.global, address[lane as usize], bytes) {
                        cx.note_global(who, lane, r.order.as_ref(), mem, (at, bytes), None)?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Behind a strong load: what others have published is known from now on.
    pub fn order_loaded(
        &self,
        cx: &mut Context<'_>,
        mem: &Mem,
        address: &[u64; 32],
        pc: usize,
        mask: u32,
    ) {
        let who = cx.who(self.id, mask, pc);
        cx.learn(who, Space::Global, address, mem.strength);
    }

    /// Before a store of the lanes of `mask` to one space.
    ///
    /// # Errors
    /// An access that nothing orders before it; lanes that write different values to one place.
    pub fn order_store(
        &self,
        cx: &mut Context<'_>,
        mem: &Mem,
        space: Space,
        address: &[u64; 32],
        pc: usize,
        mask: u32,
    ) -> Result<(), Box<Fault>> {
        let (who, size, n) = (cx.who(self.id, mask, pc), mem.size, mem.n);
        let value = |k, lane| self.get(mem, k, lane) & (u64::MAX >> (64 - 8 * size));
        match space {
            Space::Shared => {
                let idle = |shared: &Shared, lane: u32| {
                    let at = address[lane as usize] as usize;
                    (0..n).all(|k| shared.load(at + (size * k) as usize, size) == value(k, lane))
                };
                if cx.note_shared_store(who, mem, address, size * n, &idle)? {
                    collide("shared", mem, address, mask, value, &|at| at.to_string())?;
                }
            }
            Space::Global => {
                if mem.strength.strong {
                    cx.publish(who, space, address, mem.strength);
                }
                if cx.events.order.checks.races && !ascending(address, mask, size * n) {
                    let global = cx.global;
                    collide("global", mem, address, mask, value, &|at| global.describe(at))?;
                }
                for lane in lanes(mask) {
                    let Some((r, at)) = watched(cx.global, address[lane as usize], size * n) else {
                        continue;
                    };
                    let same = |k| r.load(at + u64::from(size * k), size) == value(k, lane);
                    let idle = || (0..n).all(same);
                    let shadow = r.order.as_ref();
                    cx.note_global(who, lane, shadow, mem, (at, size * n), Some(&idle))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Before an atomic of the lanes of `mask` in one space.
    ///
    /// # Errors
    /// An access that is no atomic and that nothing orders before it.
    pub fn order_atomic(
        &self,
        cx: &mut Context<'_>,
        mem: &Mem,
        space: Space,
        address: &[u64; 32],
        pc: usize,
        mask: u32,
    ) -> Result<(), Box<Fault>> {
        let (who, bytes) = (cx.who(self.id, mask, pc), mem.size * mem.n);
        match space {
            Space::Shared => {
                cx.note_shared_store(who, mem, address, bytes, &|_, _| false)?;
            }
            Space::Global => {
                // Before others can see the new value.
                cx.publish(who, space, address, mem.strength);
                for lane in lanes(mask) {
                    if let Some((r, at)) = watched(cx.global, address[lane as usize], bytes) {
                        let idle = Some(&(|| false) as &dyn Fn() -> bool);
                        cx.note_global(who, lane, r.order.as_ref(), mem, (at, bytes), idle)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Before the `cp.async` of the lanes of `mask` begin; the lanes of `reading` read all of their
    /// bytes.
    ///
    /// # Errors
    /// An access that nothing orders before them.
    pub fn order_copies(
        &self,
        cx: &mut Context<'_>,
        mem: &Mem,
        (to, source): (&[u64; 32], &[u64; 32]),
        pc: usize,
        (mask, reading): (u32, u32),
    ) -> Result<(), Box<Fault>> {
        let who = cx.who(self.id, mask, pc);
        for lane in lanes(reading) {
            if let Some((r, at)) = watched(cx.global, source[lane as usize], mem.size) {
                cx.note_global(who, lane, r.order.as_ref(), mem, (at, mem.size), None)?;
            }
        }
        cx.events.order.depart(who, to, mem.size)
    }
}
