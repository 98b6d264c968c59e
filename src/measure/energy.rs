//! The energy of a launch, by the GPU's own counter.
//!
//! Launches go back to back, without a flush of L2, while a thread reads counter and power. The counter
//! moves in steps (on an H200 every 100 ms) and power follows the load late, so what counts lies between
//! the first step after a second of load and the last step. Launches between the two come from the bursts
//! that they were queued in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::device::{Device, DeviceError, Meter, Reading, Sampler};
use crate::record::Energy;

/// The load before what counts: power follows it within about a second.
const LEAD: Duration = Duration::from_secs(1);
/// What counts lasts at least so long.
const WINDOW: Duration = Duration::from_millis(1600);
/// Launches that are queued together last so long.
const BURST: Duration = Duration::from_millis(20);
/// Most of them.
const MOST: f64 = 20_000.0;
/// From one reading to the next.
const PAUSE: Duration = Duration::from_millis(2);
/// A GPU that had work takes more than an idle one for about so long.
const REST: Duration = Duration::from_millis(1800);
/// How long idleness is measured for.
const IDLE: Duration = Duration::from_millis(700);
/// Steps of the counter, without which its error is too large.
const FEWEST_STEPS: usize = 8;

/// A reading and when it was taken, seconds from some moment.
type At = (f64, Reading);

/// What a GPU takes without work, W, after a rest of some two seconds; with why it is not known.
///
/// # Errors
/// In words: there is no counter, or it stands still.
pub fn idle(device: &dyn Device) -> Result<f64, String> {
    let mut meter = device.meter().ok_or(NO_METER)?;
    std::thread::sleep(REST);
    let start = Instant::now();
    let mut read = Vec::new();
    while start.elapsed() < IDLE {
        let at = start.elapsed().as_secs_f64();
        read.push((at, meter.read()?));
        std::thread::sleep(PAUSE);
    }
    let (first, last) = steps(&read, 0.0).ok_or(STILL)?;
    Ok((last.1.joules - first.1.joules) / (last.0 - first.0))
}

const NO_METER: &str =
    "nothing tells this device's energy (NVML is missing, or the GPU has no counter)";
const STILL: &str = "the counter of energy stands still";

/// Keeps the device at a verified job for some three seconds and says what a run of it took.
///
/// # Errors
/// The device's. What the counter cannot tell is no error, but in the answer.
pub fn energy(
    device: &dyn Device,
    sampler: &mut dyn Sampler,
    idle_watts: f64,
) -> Result<Energy, DeviceError> {
    let Some(meter) = device.meter() else { return Ok(Energy::unavailable(NO_METER)) };
    let one_ns = sampler.burst(1)?.max(1.0);
    let count = (BURST.as_secs_f64() * 1e9 / one_ns).clamp(1.0, MOST) as u32;
    let (start, ends) = (Instant::now(), AtomicBool::new(false));
    let (launched, read) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch(meter, start, &ends));
        let mut launched = vec![(start.elapsed().as_secs_f64(), 0.0)];
        let load = (|| {
            while start.elapsed() < LEAD + WINDOW {
                sampler.burst(count)?;
                let done = launched.last().map_or(0.0, |l| l.1) + f64::from(count);
                launched.push((start.elapsed().as_secs_f64(), done));
            }
            Ok(())
        })();
        ends.store(true, Ordering::Release);
        let read = watch.join().unwrap_or_else(|_| Err("reading the counter failed".into()));
        load.map(|()| (launched, read))
    })?;
    Ok(read
        .and_then(|read| reckon(&launched, &read, LEAD.as_secs_f64(), idle_watts))
        .unwrap_or_else(|why| Energy::unavailable(&why)))
}

fn watch(mut meter: Box<dyn Meter>, start: Instant, ends: &AtomicBool) -> Result<Vec<At>, String> {
    let mut read = Vec::new();
    while !ends.load(Ordering::Acquire) {
        let at = start.elapsed().as_secs_f64();
        read.push((at, meter.read()?));
        std::thread::sleep(PAUSE);
    }
    Ok(read)
}

/// The first and the last reading from `from` on at which the counter had just moved.
fn steps(read: &[At], from: f64) -> Option<(At, At)> {
    let moved = |w: &&[At]| w[1].1.joules != w[0].1.joules;
    let mut at = read.windows(2).filter(moved).map(|w| w[1]).filter(|at| at.0 >= from);
    let first = at.next()?;
    Some((first, at.next_back()?))
}

/// The energy of one launch from launches done and readings taken over time.
fn reckon(
    launched: &[(f64, f64)],
    read: &[At],
    from: f64,
    idle_watts: f64,
) -> Result<Energy, String> {
    if read.windows(2).any(|w| w[1].1.joules < w[0].1.joules) {
        return Err("the counter of energy went backwards".into());
    }
    let until = launched.last().map_or(0.0, |l| l.0);
    let read: Vec<At> = read.iter().copied().filter(|r| r.0 <= until).collect();
    let (first, last) = steps(&read, from).ok_or(STILL)?;
    let within: Vec<&At> = read.iter().filter(|r| r.0 >= first.0 && r.0 <= last.0).collect();
    let moves = within.windows(2).filter(|w| w[0].1.joules != w[1].1.joules).count();
    if moves < FEWEST_STEPS {
        return Err(format!("the counter of energy moved {moves} times only"));
    }
    let launches = done(launched, last.0) - done(launched, first.0);
    let (seconds, joules) = (last.0 - first.0, last.1.joules - first.1.joules);
    let watts: Vec<f64> = within.iter().filter_map(|r| r.1.watts).collect();
    let mean = watts.iter().sum::<f64>() / watts.len() as f64;
    Ok(Energy::Measured {
        joules: joules / launches,
        net_joules: (joules - idle_watts * seconds) / launches,
        watts: joules / seconds,
        power_watts: (!watts.is_empty()).then_some(mean),
        idle_watts,
        launches,
        seconds,
    })
}

/// Launches done at a moment: steadily within a burst.
fn done(launched: &[(f64, f64)], at: f64) -> f64 {
    let i = launched.partition_point(|l| l.0 < at).clamp(1, launched.len() - 1);
    let [(t0, n0), (t1, n1)] = [launched[i - 1], launched[i]];
    n0 + (n1 - n0) * ((at - t0) / (t1 - t0)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter that moves every 100 ms, read every 2 ms, at 300 W, and bursts of 250 launches in 20 ms.
    fn steady(seconds: f64) -> (Vec<(f64, f64)>, Vec<At>) {
        let bursts = (0..=(seconds / 0.02) as usize).map(|i| (0.02 * i as f64, 250.0 * i as f64));
        let read = (0..(seconds / 0.002) as usize).map(|i| {
            let at = 0.002 * i as f64;
            let joules = 1e6 + 30.0 * ((at + 0.013) / 0.1).floor();
            (at, Reading { joules, watts: Some(300.0) })
        });
        (bursts.collect(), read.collect())
    }

    #[test]
    fn steady_power_times_time_is_the_energy() {
        let (launched, read) = steady(2.6);
        let Ok(Energy::Measured {
            joules, net_joules, watts, power_watts, launches, seconds, ..
        }) = reckon(&launched, &read, 1.0, 100.0)
        else {
            panic!("it is measured")
        };
        // 80 us a launch at 300 W.
        assert!((joules / 0.024 - 1.0).abs() < 0.01, "{joules}");
        assert!((net_joules / 0.016 - 1.0).abs() < 0.015, "{net_joules}");
        assert!((watts / 300.0 - 1.0).abs() < 0.01 && power_watts == Some(300.0), "{watts}");
        assert!((1.4..1.6).contains(&seconds), "{seconds}");
        assert!((launches * 80e-6 / seconds - 1.0).abs() < 1e-6, "{launches}");
    }

    /// What the counter took up before the load was steady is left out.
    #[test]
    fn the_lead_is_no_part_of_it() {
        let (launched, mut read) = steady(2.6);
        read.iter_mut().filter(|r| r.0 < 0.9).for_each(|r| r.1.joules -= 500.0 * (0.9 - r.0));
        let found = reckon(&launched, &read, 1.0, 100.0);
        let Ok(Energy::Measured { watts, .. }) = found else { panic!("{found:?}") };
        assert!((watts / 300.0 - 1.0).abs() < 0.01, "{watts}");
    }

    #[test]
    fn counters_that_tell_nothing_are_said_to() {
        let (launched, read) = steady(2.6);
        let with = |joules: &dyn Fn(f64) -> f64| -> Vec<At> {
            read.iter().map(|r| (r.0, Reading { joules: joules(r.0), watts: None })).collect()
        };
        for (readings, words) in [
            (with(&|_| 5.0), "stands still"),
            (with(&|t| if t > 1.3 { 4.0 } else { 5.0 }), "backwards"),
            (
                with(&|t| if t > 1.2 { if t > 2.0 { 7.0 } else { 6.0 } } else { 5.0 }),
                "1 times only",
            ),
            (Vec::new(), "stands still"),
        ] {
            let why = reckon(&launched, &readings, 1.0, 0.0).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}
