//! One timed run: flush, hold the stream, event, launches, event, release.
//!
//! A spinning one-thread kernel holds the stream while everything behind it is queued, so that no
//! gap of the host lies between the events. Its own time and the flush lie before the first event.
//! The clock is what the multiprocessors' cycle counters advance by over what the GPU's nanosecond
//! timer does, from before the hold to after the last launch.

use std::sync::atomic::Ordering;

use cudarc::driver::sys;

use super::driver::{Context, Page};
use super::loaded::CudaLoaded;
use crate::device::{DeviceError, Regime, Sample, Sampler};

/// The hold gives up after this long, so that a stalled host cannot hang the GPU.
const HOLD_NS: u64 = 100_000_000;

/// Tries until a sample is queued within [`HOLD_NS`].
const TRIES: usize = 3;

/// Two events with times.
pub(super) struct Events {
    pub start: sys::CUevent,
    pub stop: sys::CUevent,
}

impl Events {
    /// Makes both events.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn new(context: &Context) -> Result<Events, DeviceError> {
        let make = || {
            let mut event = std::ptr::null_mut();
            // SAFETY: writes one handle; flags 0 keep the times.
            let made = unsafe { sys::cuEventCreate(&mut event, 0) };
            context.check(made, || "making an event".into()).map(|()| event)
        };
        Ok(Events { start: make()?, stop: make()? })
    }

    fn record(&self, context: &Context, event: sys::CUevent) -> Result<(), DeviceError> {
        // SAFETY: handles of this context.
        let recorded = unsafe { sys::cuEventRecord(event, context.stream) };
        context.check(recorded, || "recording an event".into())
    }

    /// Nanoseconds between the events, once both are past.
    fn elapsed_ns(&self, context: &Context) -> Result<f64, DeviceError> {
        let mut ms = 0f32;
        // SAFETY: writes one number; handles of this context.
        let read = unsafe { sys::cuEventElapsedTime_v2(&mut ms, self.start, self.stop) };
        context.check(read, || "reading the time between events".into())?;
        Ok(f64::from(ms) * 1e6)
    }

    /// Gives both events back to the driver.
    pub fn destroy(&self) {
        for event in [self.start, self.stop] {
            // SAFETY: callers have bound the context and use the events no more.
            let _ = unsafe { sys::cuEventDestroy_v2(event) };
        }
    }
}

impl Sampler for CudaLoaded {
    fn burst(&mut self, runs: u32) -> Result<f64, DeviceError> {
        let context = &*self.station().context;
        context.bind()?;
        self.warm_up()?;
        let (context, events) = (&*self.station().context, self.events());
        events.record(context, events.start)?;
        for _ in 0..runs {
            self.queue()?;
        }
        events.record(context, events.stop)?;
        context.wait(self.kernel())?;
        events.elapsed_ns(context)
    }

    fn spin(&mut self, cycles: u64) -> Result<(), DeviceError> {
        self.set_spin(cycles);
        // A first launch may load code, as in warming up.
        self.station().context.bind()?;
        self.station().tools.spin(&self.station().context, 1)?;
        self.station().context.wait(self.kernel())
    }

    fn sample(&mut self, regime: Regime) -> Result<Sample, DeviceError> {
        self.station().context.bind()?;
        // A first launch may load code, for which the driver waits for the held stream.
        self.warm_up()?;
        for _ in 0..TRIES {
            if let Some(sample) = self.try_sample(regime)? {
                return Ok(sample);
            }
        }
        Err(DeviceError::Launch(format!(
            "kernel {}: its launches could not be queued within {} ms; the machine is overloaded, \
             or CUDA_LAUNCH_BLOCKING or a debugger makes launches wait",
            self.kernel(),
            HOLD_NS / 1_000_000
        )))
    }
}

impl CudaLoaded {
    /// `None` if the hold gave up before all was queued.
    fn try_sample(&self, regime: Regime) -> Result<Option<Sample>, DeviceError> {
        let station = self.station();
        let (context, tools) = (&*station.context, &station.tools);
        context.page.clear();
        match regime {
            Regime::Cold => station.flush.run()?,
            Regime::Hot => self.queue()?,
        }
        tools.stamp(context, 0, station.multiprocessors)?;
        tools.hold(context, HOLD_NS)?;
        let events = self.events();
        let queued = (|| {
            events.record(context, events.start)?;
            self.queue()?;
            if self.spin_cycles() > 0 {
                tools.spin(context, self.spin_cycles())?;
            }
            events.record(context, events.stop)?;
            tools.stamp(context, 1, station.multiprocessors)
        })();
        // Released also after an error, or the hold would keep the stream to its limit.
        context.page.word(0).store(1, Ordering::Release);
        queued?;
        context.wait(self.kernel())?;
        if context.page.word(1).load(Ordering::Acquire) != 0 {
            return Ok(None);
        }
        let ns = events.elapsed_ns(context)?;
        Ok(Some(Sample { ns, sm_mhz: clock_mhz(|byte| context.page.value(byte)) }))
    }
}

/// The median over multiprocessors of cycles per microsecond between both probes.
fn clock_mhz(value: impl Fn(usize) -> u64) -> Option<f64> {
    let at = |probe, slot| Page::STAMPS + (probe * Page::SLOTS + slot) * 16;
    let mut rates: Vec<f64> = (0..Page::SLOTS)
        .filter_map(|slot| {
            let [before, after] = [0, 1].map(|p| (value(at(p, slot)), value(at(p, slot) + 8)));
            let cycles = after.0.checked_sub(before.0)?;
            let ns = after.1.checked_sub(before.1)?;
            (before.1 > 0 && cycles > 0 && ns > 0).then(|| cycles as f64 * 1e3 / ns as f64)
        })
        .collect();
    if rates.is_empty() {
        return None;
    }
    let middle = rates.len() / 2;
    Some(*rates.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_a_median_over_stamped_multiprocessors() {
        // Slots 0..3 run at 1500, 1600, 1700 MHz over 10 us; slot 3 was stamped once only.
        let value = |byte: usize| {
            let (probe, rest) = (
                (byte - Page::STAMPS) / (Page::SLOTS * 16),
                (byte - Page::STAMPS) % (Page::SLOTS * 16),
            );
            let (slot, which) = (rest / 16, rest % 16 / 8);
            let cycles = [15_000, 16_000, 17_000];
            match (slot, probe, which) {
                (0..3, 0, 0) => 5,
                (0..3, 1, 0) => 5 + cycles[slot],
                (0..3, p, _) => 1_000 + p as u64 * 10_000,
                (3, 1, _) => 9,
                _ => 0,
            }
        };
        assert_eq!(clock_mhz(value), Some(1600.0));
        assert_eq!(clock_mhz(|_| 0), None);
    }
}
