//! Instructions through which the lanes of a warp exchange values.

use pulp::Arch;

use super::hopper::RANK_SHIFT;
use super::ptx::ast::Space;
use super::regs::{El, Regs, Row, Slots, put};
use super::trap::{Fault, FaultKind};

/// Over the executing lanes, all of which the member mask names.
pub type CollectiveFn = fn(&mut Regs, &Slots, u32) -> Result<(), Box<Fault>>;

/// Order alone: registers stay as they are.
///
/// # Errors
/// Never.
pub fn warp_sync(_: &mut Regs, _: &Slots, _: u32) -> Result<(), Box<Fault>> {
    Ok(())
}

/// `o = [d, a, b, c, p]`; `imm`: up, down, bfly, idx.
///
/// # Errors
/// A lane reads one that does not take part.
pub fn shfl(r: &mut Regs, s: &Slots, mask: u32) -> Result<(), Box<Fault>> {
    let [d, a, b, c, p] = s.o.map(usize::from);
    let mut out = r.r32[a];
    let mut inside = 0;
    for lane in 0..32u32 {
        if mask >> lane & 1 == 0 {
            continue;
        }
        let i = lane as usize;
        let bval = r.r32[b][i] & 0x1f;
        let cval = r.r32[c][i] & 0x1f;
        let segment = r.r32[c][i] >> 8 & 0x1f;
        let max = lane & segment | cval & !segment;
        let min = lane & segment;
        let (from, ok) = match s.imm {
            0 => {
                let j = lane as i32 - bval as i32;
                (j as u32, j >= max as i32)
            }
            1 => (lane + bval, lane + bval <= max),
            2 => (lane ^ bval, lane ^ bval <= max),
            _ => {
                let j = min | bval & !segment;
                (j, j <= max)
            }
        };
        if ok {
            if mask >> from & 1 == 0 {
                return Err(Fault::new(
                    FaultKind::Operand,
                    lane,
                    format!("shfl reads lane {from}, which does not take part"),
                ));
            }
            inside |= 1 << lane;
            out[i] = r.r32[a][from as usize];
        }
    }
    u32::write(r, d as u16, mask, &out);
    put(&mut r.p[p], mask, inside);
    Ok(())
}

/// `o = [d, p]`; `imm`: all, any, uni, ballot, plus 4 for a negated source.
///
/// # Errors
/// Never.
pub fn vote(r: &mut Regs, s: &Slots, mask: u32) -> Result<(), Box<Fault>> {
    let mut p = r.p[usize::from(s.o[1])];
    if s.imm & 4 != 0 {
        p = !p;
    }
    let hits = p & mask;
    let yes = match s.imm & 3 {
        0 => hits == mask,
        1 => hits != 0,
        2 => hits == mask || hits == 0,
        _ => {
            u32::write(r, s.o[0], mask, &Row([hits; 32]));
            return Ok(());
        }
    };
    put(&mut r.p[usize::from(s.o[0])], mask, if yes { u32::MAX } else { 0 });
    Ok(())
}

/// `o = [d, a, p]`; `imm` 1: all, 2: 64 bits.
///
/// # Errors
/// Never.
pub fn matching(r: &mut Regs, s: &Slots, mask: u32) -> Result<(), Box<Fault>> {
    let value = |r: &Regs, i: usize| {
        let a = usize::from(s.o[1]);
        if s.imm & 2 != 0 { r.r64[a][i] } else { r.r32[a][i].into() }
    };
    let lanes = || (0..32).filter(|i| mask >> i & 1 != 0);
    let mut out = Row([0; 32]);
    for i in lanes() {
        for j in lanes() {
            out[i] |= u32::from(value(r, i) == value(r, j)) << j;
        }
    }
    let mut same = u32::MAX;
    if s.imm & 1 != 0 && lanes().any(|i| out[i] != mask) {
        (out, same) = (Row([0; 32]), 0);
    }
    u32::write(r, s.o[0], mask, &out);
    put(&mut r.p[usize::from(s.o[2])], mask, same);
    Ok(())
}

/// `o = [d, a]`; `imm`: add, min, max, and, or, xor, plus 8 for signed.
///
/// # Errors
/// Never.
pub fn redux(r: &mut Regs, s: &Slots, mask: u32) -> Result<(), Box<Fault>> {
    let a = &r.r32[usize::from(s.o[1])];
    let signed = s.imm & 8 != 0;
    let result =
        (0..32).filter(|i| mask >> i & 1 != 0).map(|i| a[i]).reduce(|x, y| match s.imm & 7 {
            0 => x.wrapping_add(y),
            1 if signed => (x as i32).min(y as i32) as u32,
            1 => x.min(y),
            2 if signed => (x as i32).max(y as i32) as u32,
            2 => x.max(y),
            3 => x & y,
            4 => x | y,
            _ => x ^ y,
        });
    u32::write(r, s.o[0], mask, &Row([result.unwrap_or(0); 32]));
    Ok(())
}

/// `o = [d, p]`: the lowest lane is elected.
///
/// # Errors
/// Never.
pub fn elect(r: &mut Regs, s: &Slots, mask: u32) -> Result<(), Box<Fault>> {
    let lane = mask.trailing_zeros();
    u32::write(r, s.o[0], mask, &Row([lane; 32]));
    put(&mut r.p[usize::from(s.o[1])], mask, 1 << lane);
    Ok(())
}

/// `o = [d, a]`: 8x8 of 16 bits, transposed.
///
/// # Errors
/// Never.
pub fn movmatrix(r: &mut Regs, s: &Slots, _: u32) -> Result<(), Box<Fault>> {
    let a = r.r32[usize::from(s.o[1])];
    r.r32[usize::from(s.o[0])] = transpose(&a);
    Ok(())
}

/// A fragment of 8x8 elements of 16 bits (lane l: row l/4, columns 2(l%4) and the next), transposed.
#[inline(always)]
pub fn transpose(a: &[u32; 32]) -> Row<u32> {
    let mut out = Row([0; 32]);
    for h in 0..4 {
        for t in 0..4 {
            // Columns 2h and 2h + 1 of rows 2t and 2t + 1.
            let (x, y) = (a[8 * t + h], a[8 * t + 4 + h]);
            out[8 * h + t] = x & 0xffff | y << 16;
            out[8 * h + 4 + t] = x >> 16 | y & 0xffff_0000;
        }
    }
    out
}

/// `o = [d]`
pub fn activemask(_: Arch, r: &mut Regs, s: &Slots, mask: u32) {
    u32::write(r, s.o[0], mask, &Row([mask; 32]));
}

/// `o = [p, a, own rank]`; `imm` is the [`Space`].
pub fn isspacep(_: Arch, r: &mut Regs, s: &Slots, mask: u32) {
    let a = &r.r64[usize::from(s.o[1])];
    let mut hit = 0;
    for i in 0..32 {
        let (space, at) = super::memory::window(a[i]).unwrap_or((Space::Global, 0));
        let own = at >> RANK_SHIFT == u64::from(r.r32[usize::from(s.o[2])][i]) + 1;
        let cluster = matches!(space, Space::Shared | Space::Cluster);
        let yes = space as u32 == s.imm
            || cluster && s.imm == Space::Cluster as u32
            || cluster && own && s.imm == Space::Shared as u32;
        hit |= u32::from(yes) << i;
    }
    put(&mut r.p[usize::from(s.o[0])], mask, hit);
}
