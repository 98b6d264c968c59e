//! The clock that a device holds at its power limit.
//!
//! A GPU lowers its clock until what it draws on average is within the limit of its board. What it
//! draws follows from what a kernel does:
//!
//! ```text
//! watts(r) = constant + v(r)^2 (r clock + chip / period) + (memory + between) / period
//! ```
//!
//! `r` is the clock over the described one, `v(r) = 1 - slope (1 - r)` the voltage that it needs,
//! `chip` the energy of products, instructions, shared memory and L2, `memory` that of device
//! memory, `period` the time of all launches at that clock and of what lies between two samples,
//! when L2 is overwritten and the next launches are queued. So a short kernel is held back less than
//! a long one, as where it is measured.

use serde::{Deserialize, Serialize};

use super::{DeviceModel, LaunchWork};

/// What a device draws. Energies are those at the described clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// What the board may draw on average.
    pub limit_w: f64,
    /// Drawn whatever the clock.
    pub constant_w: f64,
    /// Drawn at the described clock by multiprocessors that do nothing.
    pub clock_w: f64,
    /// By how much of itself the voltage falls where the clock falls by all of itself.
    pub voltage_slope: f64,
    /// The clock does not fall below this.
    pub least_mhz: f64,
    /// From the end of a sample to the start of the next, and what is drawn then.
    pub between_ns: f64,
    pub between_w: f64,
    /// Picojoules of a FLOP of 16-bit products, by warpgroups (`wgmma`) and by warps (`mma`). A type
    /// of half the rate takes twice as much.
    pub wgmma_pj: f64,
    pub mma_pj: f64,
    /// Of any other warp instruction.
    pub instruction_pj: f64,
    /// Of bytes of shared memory, L2 and device memory.
    pub shared_byte_pj: f64,
    pub l2_byte_pj: f64,
    pub dram_byte_pj: f64,
}

/// What the energy of a launch follows from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Spent {
    /// FLOPs of products, a type of half the 16-bit rate counting twice.
    pub wgmma_flops: f64,
    pub mma_flops: f64,
    /// Warp instructions but products.
    pub instructions: f64,
    pub shared_bytes: f64,
    pub l2_bytes: f64,
    pub dram_bytes: f64,
}

impl Power {
    /// Every field's name and value, for whoever checks them: first two that must not be 0.
    pub(super) fn fields(&self) -> [(&'static str, f64); 13] {
        [
            ("power.limit_w", self.limit_w),
            ("power.least_mhz", self.least_mhz),
            ("power.constant_w", self.constant_w),
            ("power.clock_w", self.clock_w),
            ("power.voltage_slope", self.voltage_slope),
            ("power.between_ns", self.between_ns),
            ("power.between_w", self.between_w),
            ("power.wgmma_pj", self.wgmma_pj),
            ("power.mma_pj", self.mma_pj),
            ("power.instruction_pj", self.instruction_pj),
            ("power.shared_byte_pj", self.shared_byte_pj),
            ("power.l2_byte_pj", self.l2_byte_pj),
            ("power.dram_byte_pj", self.dram_byte_pj),
        ]
    }

    /// Nanojoules of the chip at the described clock, and of device memory.
    fn energy_nj(&self, spent: &Spent) -> (f64, f64) {
        let chip = self.wgmma_pj * spent.wgmma_flops
            + self.mma_pj * spent.mma_flops
            + self.instruction_pj * spent.instructions
            + self.shared_byte_pj * spent.shared_bytes
            + self.l2_byte_pj * spent.l2_bytes;
        (chip / 1e3, self.dram_byte_pj * spent.dram_bytes / 1e3)
    }
}

impl DeviceModel {
    /// The highest clock, up to the described one, at which `launches` one after the other, again and
    /// again, stay within the power limit; the described one where no limit is described.
    pub fn held_mhz(&self, launches: &[LaunchWork]) -> f64 {
        let most = f64::from(self.sm_mhz);
        let Some(power) = &self.power else { return most };
        let within = |mhz: f64| self.watts(power, launches, mhz / most) <= power.limit_w;
        if launches.is_empty() || within(most) {
            return most;
        }
        // What is drawn rises with the clock: halve the range until it is below a kilohertz.
        let (mut low, mut high) = (power.least_mhz.min(most), most);
        while high - low > 1e-3 {
            let middle = (low + high) / 2.0;
            if within(middle) { low = middle } else { high = middle }
        }
        low
    }

    /// Average watts of `launches` and what lies between two samples, at `r` of the described clock.
    fn watts(&self, power: &Power, launches: &[LaunchWork], r: f64) -> f64 {
        let (mut chip, mut memory) = (0.0, power.between_w * power.between_ns);
        let mut period = power.between_ns;
        for one in launches {
            let of = power.energy_nj(&one.energy);
            chip += of.0;
            memory += of.1;
            period += one.ns(1.0 / r) + self.launch_ns;
        }
        let voltage = 1.0 - power.voltage_slope * (1.0 - r);
        // Nanojoules in a nanosecond are watts.
        power.constant_w + voltage * voltage * (power.clock_w * r + chip / period) + memory / period
    }
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;

    use super::*;

    /// 1 GHz, 700 W of which 300 are drawn by doing nothing, and the energies of round numbers.
    fn toy() -> DeviceModel {
        let text = include_str!("../../../devices/h200.toml");
        let mut m = DeviceModel::parse("toy", text).unwrap();
        m.sm_mhz = 1000;
        m.launch_ns = 0.0;
        m.power = Some(Power {
            limit_w: 700.0,
            constant_w: 200.0,
            clock_w: 100.0,
            voltage_slope: 0.0,
            least_mhz: 100.0,
            between_ns: 0.0,
            between_w: 0.0,
            wgmma_pj: 1.0,
            mma_pj: 2.0,
            instruction_pj: 100.0,
            shared_byte_pj: 1.0,
            l2_byte_pj: 10.0,
            dram_byte_pj: 50.0,
        });
        m
    }

    fn work(ns: f64, energy: Spent) -> LaunchWork {
        LaunchWork { limits: IndexMap::new(), schedule_ns: ns, words: None, energy }
    }

    fn products(wgmma_flops: f64) -> Spent {
        Spent { wgmma_flops, ..Spent::default() }
    }

    fn near(got: f64, want: f64) {
        assert!((got / want - 1.0).abs() < 1e-5, "{got} instead of {want}");
    }

    #[test]
    fn the_clock_falls_to_what_the_limit_leaves() {
        let m = toy();
        // 400 W of products, in 1 ms.
        assert_eq!(m.held_mhz(&[work(1e6, products(4.0e11))]), 1000.0);
        // 650 W: (100 + 650) r = 500.
        near(m.held_mhz(&[work(1e6, products(6.5e11))]), 1000.0 * 500.0 / 750.0);
        // As much by warps takes twice the energy: (100 + 1300) r = 500.
        let by_warps = Spent { mma_flops: 6.5e11, ..Spent::default() };
        near(m.held_mhz(&[work(1e6, by_warps)]), 1000.0 * 500.0 / 1400.0);
        // No clock is low enough.
        assert_eq!(m.held_mhz(&[work(1e6, products(1e14))]), 100.0);
        assert_eq!(m.held_mhz(&[]), 1000.0);
        assert_eq!(DeviceModel { power: None, ..m }.held_mhz(&[work(1e6, products(1e14))]), 1000.0);
    }

    #[test]
    fn everything_that_is_counted_takes_energy() {
        let m = toy();
        let of =
            |spent: Spent| m.watts(m.power.as_ref().unwrap(), &[work(1e6, spent)], 1.0) - 300.0;
        near(of(products(1e11)), 100.0);
        near(of(Spent { mma_flops: 1e11, ..Spent::default() }), 200.0);
        near(of(Spent { instructions: 1e9, ..Spent::default() }), 100.0);
        near(of(Spent { shared_bytes: 1e11, ..Spent::default() }), 100.0);
        near(of(Spent { l2_bytes: 1e9, ..Spent::default() }), 10.0);
        near(of(Spent { dram_bytes: 1e9, ..Spent::default() }), 50.0);
    }

    #[test]
    fn a_lower_voltage_saves_and_device_memory_does_not() {
        let mut m = toy();
        let heavy = [work(1e6, products(6.5e11))];
        let without = m.held_mhz(&heavy);
        m.power.as_mut().unwrap().voltage_slope = 0.5;
        let with = m.held_mhz(&heavy);
        assert!(with > without + 50.0, "{with} {without}");
        let v = 1.0 - 0.5 * (1.0 - with / 1000.0);
        near(200.0 + v * v * 750.0 * with / 1000.0, 700.0);
        // Bytes of device memory come at their own pace: 300 W of them, whatever the clock.
        let mut memory = work(1e5, Spent { dram_bytes: 6e9, ..Spent::default() });
        memory.limits.insert("memory".into(), 1e6);
        let watts = |r| m.watts(m.power.as_ref().unwrap(), std::slice::from_ref(&memory), r);
        near(watts(1.0), 600.0);
        near(watts(0.5), 500.0 + 0.75 * 0.75 * 50.0);
    }

    #[test]
    fn short_kernels_rest_between_samples() {
        let mut m = toy();
        let power = m.power.as_mut().unwrap();
        (power.between_ns, power.between_w) = (1e5, 100.0);
        // 900 W while it runs: half of the time of 0.1 ms, most of that of 10 ms.
        let of = |ns: f64| m.held_mhz(&[work(ns, products(6.0e11 * ns / 1e6))]);
        assert_eq!(of(1e5), 1000.0);
        let long = of(1e7);
        assert!((700.0..750.0).contains(&long), "{long}");
        assert!(of(1e6) > long);
    }
}
