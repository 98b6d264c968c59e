//! Atomics of all spaces, and what they compute.

use half::{bf16, f16};

use super::lanes;
use crate::device::emulator::alu_float::{Bf16, F16, Half};
use crate::device::emulator::memory::wavefronts;
use crate::device::emulator::num;
use crate::device::emulator::program::{AtomOp, AtomTy, Extra, Mem};
use crate::device::emulator::ptx::ast::Space;
use crate::device::emulator::stream::Way;
use crate::device::emulator::trap::{Fault, FaultKind};
use crate::device::emulator::warp::{Context, Warp};

impl Warp {
    /// Executes `atom` or `red` for the lanes of `mask`, lowest lane first.
    ///
    /// # Errors
    /// An address outside of its buffer, misaligned or in another space; a byte that nothing has
    /// written; an access that nothing orders before it.
    pub fn atomic(
        &mut self,
        cx: &mut Context<'_>,
        mem: &Mem,
        pc: usize,
        mask: u32,
    ) -> Result<(), Box<Fault>> {
        let mut address = self.addresses(mem.base, mem.offset);
        let split = match mem.space {
            Space::Generic => Self::split(&mut address, mask),
            space => {
                let none = (Space::Shared, 0);
                [(space, mask), none, none, none, none]
            }
        };
        let Extra::Atom { op, ty, returns } = mem.extra else { return Ok(()) };
        for (space, mask) in split {
            if mask == 0 {
                continue;
            }
            if cx.ordered() {
                self.order_atomic(cx, mem, space, &address, pc, mask)?;
            }
            // Vectors of 64-bit elements do not exist: these are two halves that are exchanged as
            // one.
            if mem.n == 2 && mem.wide {
                for lane in lanes(mask) {
                    self.exchange(cx, mem, op, (space, address[lane as usize]), (lane, pc))?;
                }
            }
            for lane in lanes(if mem.n == 2 && mem.wide { 0 } else { mask }) {
                let i = lane as usize;
                for k in 0..mem.n {
                    let b = self.get(mem, if returns { mem.n + k } else { 1 + k }, lane);
                    let c = if op == AtomOp::Cas { self.get(mem, 2, lane) } else { 0 };
                    let at = address[i] + u64::from(k * mem.size);
                    let new = |old: u64| match space {
                        Space::Global => combine_in_l2((op, ty, true), old, b, c),
                        _ => combine(op, ty, old, b, c),
                    };
                    let old = match space {
                        Space::Shared => {
                            let at = cx.shared.locate(at, mem.size, lane, "shared atomic")?;
                            let read = cx.shared.check_read(at, mem.size, lane, "shared atomic");
                            if let Err(f) = read {
                                cx.excuse(f, cx.who(self.id, mask, pc))?;
                            }
                            let old = cx.shared.load(at, mem.size);
                            cx.shared.store(at, mem.size, new(old));
                            old
                        }
                        Space::Cluster => {
                            let what = "shared::cluster atomic";
                            let (rank, at) = cx.place(space, at, lane, what)?;
                            let at = cx.shared_of(rank).locate(at, mem.size, lane, what)?;
                            let who = cx.who(self.id, 1 << lane, pc);
                            cx.note_peer_store(who, mem, (rank, at as u64), mem.size, false)?;
                            let shared = cx.shared_of(rank);
                            if let Err(f) = shared.check_read(at, mem.size, lane, what) {
                                cx.excuse(f, who)?;
                            }
                            let shared = cx.shared_of(rank);
                            let old = shared.load(at, mem.size);
                            shared.store(at, mem.size, new(old));
                            old
                        }
                        Space::Global => {
                            let what = "global atomic";
                            let (r, at) = cx.global.locate(at, mem.size.into(), lane, what)?;
                            r.note_read(at, mem.size.into(), lane, what)?;
                            r.note_write(at, mem.size.into());
                            cx.global.update(r, at, mem.size, new)
                        }
                        _ => {
                            let message = format!("atomic on {} memory", space.name());
                            return Err(Fault::new(FaultKind::Operand, lane, message));
                        }
                    };
                    if returns {
                        self.put(mem, k, lane, old);
                    }
                }
            }
            if space == Space::Global {
                if returns && cx.ordered() {
                    self.order_loaded(cx, mem, &address, pc, mask);
                }
                cx.count_global(pc, &address, mask, Way::Write);
            } else {
                cx.count_shared(pc, wavefronts(&address, mask, mem.size * mem.n));
            }
        }
        Ok(())
    }
}

impl Warp {
    /// `atom.exch` and `atom.cas` of 128 bits.
    fn exchange(
        &mut self,
        cx: &mut Context<'_>,
        mem: &Mem,
        op: AtomOp,
        (space, at): (Space, u64),
        (lane, pc): (u32, usize),
    ) -> Result<(), Box<Fault>> {
        let pair = |k| [self.get(mem, k, lane), self.get(mem, k + 1, lane)];
        let b = pair(2);
        let c = if op == AtomOp::Cas { pair(4) } else { b };
        let new = |old: [u64; 2]| match op {
            AtomOp::Cas if old != b => old,
            _ => c,
        };
        let who = cx.who(self.id, 1 << lane, pc);
        let old = match space {
            Space::Shared | Space::Cluster => {
                let what = if space == Space::Shared { "shared atomic" } else { "peer atomic" };
                let (rank, at) = cx.place(Space::Cluster, at, lane, what)?;
                let at = cx.shared_of(rank).locate(at, 16, lane, what)?;
                if space == Space::Cluster {
                    cx.note_peer_store(who, mem, (rank, at as u64), 16, false)?;
                }
                if let Err(f) = cx.shared_of(rank).check_read(at, 16, lane, what) {
                    cx.excuse(f, who)?;
                }
                let shared = cx.shared_of(rank);
                let old = [shared.load(at, 8), shared.load(at + 8, 8)];
                let [low, high] = new(old);
                shared.store(at, 8, low);
                shared.store(at + 8, 8, high);
                old
            }
            Space::Global => {
                let what = "global atomic";
                let (r, at) = cx.global.locate(at, 16, lane, what)?;
                r.note_read(at, 16, lane, what)?;
                r.note_write(at, 16);
                cx.global.update_pair(r, at, new)
            }
            _ => {
                let message = format!("atomic on {} memory", space.name());
                return Err(Fault::new(FaultKind::Operand, lane, message));
            }
        };
        self.put(mem, 0, lane, old[0]);
        self.put(mem, 1, lane, old[1]);
        Ok(())
    }
}

/// What an operation in global memory makes of `old`. With `ftz` a sum of fp32 takes subnormals for
/// zeros; a sum of fp64 keeps a NaN operand as it is.
pub fn combine_in_l2((op, ty, ftz): (AtomOp, AtomTy, bool), old: u64, b: u64, c: u64) -> u64 {
    match (op, ty) {
        (AtomOp::Add, AtomTy::F32) if ftz => {
            let part = |x: u64| num::flush(f32::from_bits(x as u32));
            num::canon(num::flush(part(old) + part(b))).into()
        }
        (AtomOp::Add, AtomTy::F64) if f64::from_bits(b).is_nan() => b,
        (AtomOp::Add, AtomTy::F64) if f64::from_bits(old).is_nan() => old,
        _ => combine(op, ty, old, b, c),
    }
}

/// What an atomic operation makes of `old`.
pub fn combine(op: AtomOp, ty: AtomTy, old: u64, b: u64, c: u64) -> u64 {
    let (o32, b32) = (old as u32, b as u32);
    let pair = |f: &dyn Fn(u16, u16) -> u16| {
        let low = f(o32 as u16, b32 as u16);
        let high = f((o32 >> 16) as u16, (b32 >> 16) as u16);
        u64::from(low) | u64::from(high) << 16
    };
    match (op, ty) {
        (AtomOp::Add, AtomTy::F32) => num::canon(f32::from_bits(o32) + f32::from_bits(b32)).into(),
        (AtomOp::Add, AtomTy::F64) => {
            num::settle64(f64::from_bits(old) + f64::from_bits(b), &[old, b])
        }
        (AtomOp::Add, AtomTy::F16) => half_sum::<F16>(o32 as u16, b32 as u16).into(),
        (AtomOp::Add, AtomTy::Bf16) => half_sum::<Bf16>(o32 as u16, b32 as u16).into(),
        (AtomOp::Min | AtomOp::Max, AtomTy::F16) => {
            half_extreme(op, o32 as u16, b32 as u16, f16_value)
        }
        (AtomOp::Min | AtomOp::Max, AtomTy::Bf16) => {
            half_extreme(op, o32 as u16, b32 as u16, bf16_value)
        }
        (AtomOp::Min | AtomOp::Max, AtomTy::F16x2) => {
            pair(&|x, y| half_extreme(op, x, y, f16_value) as u16)
        }
        (AtomOp::Min | AtomOp::Max, AtomTy::Bf16x2) => {
            pair(&|x, y| half_extreme(op, x, y, bf16_value) as u16)
        }
        (AtomOp::Add, AtomTy::F16x2) => pair(&half_sum::<F16>),
        (AtomOp::Add, AtomTy::Bf16x2) => pair(&half_sum::<Bf16>),
        (AtomOp::Add, AtomTy::U64 | AtomTy::S64) => old.wrapping_add(b),
        (AtomOp::Add, _) => o32.wrapping_add(b32).into(),
        (AtomOp::Min, AtomTy::S32) => ((o32 as i32).min(b32 as i32) as u32).into(),
        (AtomOp::Max, AtomTy::S32) => ((o32 as i32).max(b32 as i32) as u32).into(),
        (AtomOp::Min, AtomTy::S64) => (old as i64).min(b as i64) as u64,
        (AtomOp::Max, AtomTy::S64) => (old as i64).max(b as i64) as u64,
        (AtomOp::Min, _) => old.min(b),
        (AtomOp::Max, _) => old.max(b),
        (AtomOp::And, _) => old & b,
        (AtomOp::Or, _) => old | b,
        (AtomOp::Xor, _) => old ^ b,
        (AtomOp::Exch, _) => b,
        (AtomOp::Cas, _) => {
            if old == b {
                c
            } else {
                old
            }
        }
        (AtomOp::Inc, _) => {
            if o32 >= b32 {
                0
            } else {
                u64::from(o32) + 1
            }
        }
        (AtomOp::Dec, _) => {
            if o32 == 0 || o32 > b32 {
                b
            } else {
                u64::from(o32) - 1
            }
        }
    }
}

fn half_sum<H: Half>(x: u16, y: u16) -> u16 {
    H::from(H::to(x.into()) + H::to(y.into())) as u16
}

fn f16_value(x: u16) -> f32 {
    f16::from_bits(x).to_f32()
}

fn bf16_value(x: u16) -> f32 {
    bf16::from_bits(x).to_f32()
}

/// The smaller or larger of two halves; of a number and NaN, the number; -0 is below 0.
fn half_extreme(op: AtomOp, x: u16, y: u16, value: fn(u16) -> f32) -> u64 {
    let (a, b) = (value(x), value(y));
    let less = match (a.is_nan(), b.is_nan()) {
        (true, true) => return 0x7fff,
        (true, false) => return y.into(),
        (false, true) => return x.into(),
        _ => a.total_cmp(&b).is_lt(),
    };
    if less == (op == AtomOp::Min) { x.into() } else { y.into() }
}
