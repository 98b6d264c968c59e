//! What the lanes of one request cost: sectors of global memory, banks of shared memory.

/// Distinct 32-byte sectors that the lanes of `mask` touch; an access never straddles two unless
/// it is of 64 bytes.
#[inline(always)]
pub fn sectors(address: &[u64; 32], mask: u32) -> u64 {
    let mut list = [0u64; 32];
    let mut n = 0;
    let mut ascending = true;
    for (i, a) in address.iter().enumerate() {
        if mask >> i & 1 != 0 {
            let s = a >> 5;
            if n > 0 && list[n - 1] == s {
                continue;
            }
            ascending &= n == 0 || list[n - 1] < s;
            list[n] = s;
            n += 1;
        }
    }
    if ascending {
        return n as u64;
    }
    list[..n].sort_unstable();
    1 + list[..n].windows(2).filter(|w| w[0] != w[1]).count() as u64
}

/// Cycles that a shared-memory request takes, and how many fewer it would take without bank
/// conflicts. `bytes` a lane; requests of more than 128 bytes go in phases of lanes.
pub fn wavefronts(at: &[u64; 32], mask: u32, bytes: u32) -> (u64, u64) {
    let lanes = match bytes {
        0..=4 => 32,
        8 => 16,
        _ => 8,
    };
    // Units of a phase that fill all 32 banks: words, double words, quadruple words.
    let unit = bytes.clamp(4, 16).trailing_zeros();
    let (mut total, mut ideal) = (0, 0);
    let mut phase = 0;
    while phase < 32 {
        let active = mask >> phase & (u32::MAX >> (32 - lanes));
        if active != 0 {
            total += conflict_degree(&at[phase..phase + lanes as usize], active, unit, lanes);
            ideal += 1;
        }
        phase += lanes as usize;
    }
    (total, total - ideal)
}

/// Most distinct units that fall on one bank group.
#[inline(always)]
pub fn conflict_degree(at: &[u64], active: u32, unit: u32, banks: u32) -> u64 {
    // Mostly each lane has a bank of its own, or all have one address.
    let mut seen = 0u32;
    let mut differ = 0;
    for (i, a) in at.iter().enumerate() {
        let on = active >> i & 1;
        seen |= on << ((a >> unit) as u32 & (banks - 1));
        differ |= (a ^ at[active.trailing_zeros() as usize % at.len()]) * u64::from(on);
    }
    if seen.count_ones() == active.count_ones() || differ >> unit == 0 {
        return u64::from(active != 0);
    }
    shared_banks(at, active, unit, banks)
}

/// As [`conflict_degree`], where lanes meet on banks.
fn shared_banks(at: &[u64], active: u32, unit: u32, banks: u32) -> u64 {
    // Distinct units of each bank, as lists: the latest lane, and the one before each lane.
    let mut latest = [u8::MAX; 32];
    let mut before = [u8::MAX; 32];
    let mut degree = [0u8; 32];
    let mut most = 0;
    for (i, a) in at.iter().enumerate() {
        if active >> i & 1 == 0 {
            continue;
        }
        let u = a >> unit;
        let bank = (u as u32 & (banks - 1)) as usize;
        let mut k = latest[bank];
        while k != u8::MAX && at[usize::from(k)] >> unit != u {
            k = before[usize::from(k) & 31];
        }
        if k == u8::MAX {
            before[i & 31] = latest[bank];
            latest[bank] = i as u8;
            degree[bank] += 1;
            most = most.max(degree[bank]);
        }
    }
    most.into()
}
