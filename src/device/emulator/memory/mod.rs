//! The memories a kernel sees, with a shadow that knows what has been written.

mod banks;
mod global;
mod shared;

pub use banks::{conflict_degree, sectors, wavefronts};
pub use global::{Global, Region, RegionKind};
pub use shared::{BUSY, Shared, WRITTEN};

use super::hopper::RANK_SHIFT;
use super::ptx::ast::Space;

/// Generic addresses of shared and local memory.
pub const SHARED_WINDOW: u64 = 0x7_0000_0000;
pub const LOCAL_WINDOW: u64 = 0x8_0000_0000;
pub const PARAM_WINDOW: u64 = 0x9_0000_0000;

/// Space and offset of a generic address that is not global. An offset in [`Space::Cluster`] has the
/// CTA's rank in it.
pub fn window(address: u64) -> Option<(Space, u64)> {
    match address >> 32 {
        7 => {
            let at = address - SHARED_WINDOW;
            let space = if at >> RANK_SHIFT == 0 { Space::Shared } else { Space::Cluster };
            Some((space, at))
        }
        8 => Some((Space::Local, address - LOCAL_WINDOW)),
        9 => Some((Space::Param, address - PARAM_WINDOW)),
        _ => None,
    }
}

/// Whether an address is a multiple of the bytes of an access. Those are nearly always a power of
/// two, and a division for each lane would cost more than all the rest.
#[inline(always)]
fn aligned(address: u64, bytes: u64) -> bool {
    if bytes.is_power_of_two() { address & (bytes - 1) == 0 } else { address.is_multiple_of(bytes) }
}
