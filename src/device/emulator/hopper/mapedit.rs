//! Tensor maps that a kernel writes: `tensormap.replace`, `tensormap.cp_fenceproxy`.

use std::sync::atomic::Ordering::Relaxed;

use super::Addr;
use super::tensormap::{Field, Image, MAP_BYTES};
use crate::device::emulator::access::lanes;
use crate::device::emulator::events::Fence;
use crate::device::emulator::memory::{self, RegionKind};
use crate::device::emulator::ptx::ast::Space;
use crate::device::emulator::stream::Way;
use crate::device::emulator::trap::{Fault, FaultKind};
use crate::device::emulator::warp::{Context, Warp};

const MAP: u32 = MAP_BYTES as u32;

/// A decoded `tensormap.replace`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Replace {
    pub at: Addr,
    pub field: Field,
    /// Which of the field's values.
    pub index: usize,
    /// Slot of the value, 64 bits if the field is wide.
    pub value: u16,
}

/// Where a map lies.
#[derive(Clone, Copy)]
enum Place {
    Shared(u64),
    Global(u64),
}

impl Context<'_> {
    fn map_place(&self, space: Space, address: u64) -> Place {
        match (space, memory::window(address)) {
            (Space::Shared, _) => Place::Shared(address),
            (Space::Generic, Some((Space::Shared, at))) => Place::Shared(at),
            _ => Place::Global(address),
        }
    }

    /// The bytes of a map at a place, which the lane reads.
    fn fetch_map(
        &mut self,
        warp: &Warp,
        place: Place,
        lane: u32,
        pc: usize,
        what: &str,
    ) -> Result<Image, Box<Fault>> {
        let who = self.who(warp.id, 1 << lane, pc);
        let mut image = Image([0; MAP_BYTES]);
        let words = image.0.as_chunks_mut::<4>().0.iter_mut();
        match place {
            Place::Shared(at) => {
                let at = self.shared.locate(at, MAP, lane, what)?;
                let rank = self.rank;
                self.events.order.shared_read(who, rank, &[at as u64; 32], MAP, 0)?;
                if let Err(f) = self.shared.check_read(at, MAP, lane, what) {
                    self.excuse(f, who)?;
                }
                for (b, w) in words.zip(&self.shared.words()[at / 4..]) {
                    *b = w.to_le_bytes();
                }
            }
            Place::Global(address) => {
                let (r, at) = self.global.locate(address, MAP.into(), lane, what)?;
                if let Some(shadow) = &r.order {
                    let order = &self.events.order;
                    order.global((who, lane), shadow, (at, MAP), false, 0, &|| false)?;
                }
                for k in (0..128).step_by(32) {
                    r.note_read(at + k, 32, lane, what).or_else(|f| self.excuse(f, who))?;
                }
                for (k, b) in words.enumerate() {
                    *b = r.word(at + 4 * k as u64).load(Relaxed).to_le_bytes();
                }
            }
        }
        Ok(image)
    }

    /// The lane writes the bytes of a map.
    fn put_map(
        &mut self,
        warp: &Warp,
        place: Place,
        image: &Image,
        (lane, pc): (u32, usize),
        what: &str,
    ) -> Result<(), Box<Fault>> {
        let who = self.who(warp.id, 1 << lane, pc);
        let words = image.0.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b));
        match place {
            Place::Shared(at) => {
                let at = self.shared.locate(at, MAP, lane, what)?;
                let rank = self.rank;
                let order = &mut self.events.order;
                order.shared_write(who, rank, &[at as u64; 32], MAP, 0, &|_| false)?;
                self.shared.note_write(at, MAP, lane, what)?;
                let (to, _) = self.shared.change(at / 4..at / 4 + MAP_BYTES / 4);
                to.iter_mut().zip(words).for_each(|(to, w)| *to = w);
                self.count_shared(pc, (1, 0));
            }
            Place::Global(address) => {
                let (r, at) = self.global.locate(address, MAP.into(), lane, what)?;
                if r.kind == RegionKind::Constant {
                    let message = format!("{what} into constant `{}`", r.name);
                    return Err(Fault::new(FaultKind::OutOfBounds, lane, message));
                }
                if let Some(shadow) = &r.order {
                    let order = &self.events.order;
                    order.global((who, lane), shadow, (at, MAP), true, 0, &|| false)?;
                }
                for k in (0..128).step_by(32) {
                    r.note_write(at + k, 32);
                }
                for (k, w) in words.enumerate() {
                    r.word(at + 4 * k as u64).store(w, Relaxed);
                }
                let sectors = std::array::from_fn(|i| address + 32 * i as u64);
                self.count_global(pc, &sectors, 0xf, Way::Write);
            }
        }
        Ok(())
    }
}

impl Warp {
    /// `tensormap.replace`: each lane changes one field of the map that it names.
    ///
    /// # Errors
    /// An address outside of its memory or misaligned; bytes that nothing has written, or that are
    /// neither a map nor zero; an access that nothing orders before it.
    pub fn map_replace(
        &mut self,
        cx: &mut Context<'_>,
        r: &Replace,
        pc: usize,
        exec: u32,
    ) -> Result<(), Box<Fault>> {
        let what = "tensormap.replace";
        let address = self.addresses(r.at.base, r.at.offset);
        for lane in lanes(exec) {
            let i = lane as usize;
            let place = cx.map_place(r.at.space, address[i]);
            let mut image = cx.fetch_map(self, place, lane, pc, what)?;
            if !image.adopt() {
                let message = format!(
                    "{what}: there is neither a tensor map at this address nor 128 bytes of zero"
                );
                return Err(Fault::new(FaultKind::Operand, lane, message));
            }
            let slot = usize::from(r.value);
            let value = match r.field.wide {
                true => self.regs.r64[slot][i],
                false => self.regs.r32[slot][i].into(),
            };
            image.set(r.field, r.index, value);
            cx.put_map(self, place, &image, (lane, pc), what)?;
        }
        Ok(())
    }

    /// `tensormap.cp_fenceproxy`: the warp copies one map from shared to global memory and
    /// releases it to the tensor-map proxy.
    ///
    /// # Errors
    /// Lanes that name different maps; an address outside of its memory or misaligned; bytes that
    /// nothing has written; an access that nothing orders before it.
    pub fn map_copy(
        &mut self,
        cx: &mut Context<'_>,
        (to, from): (Addr, Addr),
        pc: usize,
        exec: u32,
    ) -> Result<(), Box<Fault>> {
        let what = "tensormap.cp_fenceproxy";
        let (to_at, from_at) =
            (self.addresses(to.base, to.offset), self.addresses(from.base, from.offset));
        let lane = exec.trailing_zeros() & 31;
        let i = lane as usize;
        let apart = |l: &u32| (to_at[*l as usize], from_at[*l as usize]) != (to_at[i], from_at[i]);
        if let Some(other) = lanes(exec).find(apart) {
            let message = format!(
                "{what}: lanes {lane} and {other} name different maps; the warp copies one"
            );
            return Err(Fault::new(FaultKind::Operand, other, message));
        }
        let source = cx.map_place(from.space, from_at[i]);
        let image = cx.fetch_map(self, source, lane, pc, what)?;
        let target = cx.map_place(to.space, to_at[i]);
        cx.put_map(self, target, &image, (lane, pc), what)?;
        cx.events.fence(self.who(cx.rank, exec, pc), Fence::MapRelease);
        Ok(())
    }
}
