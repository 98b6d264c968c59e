//! The schedules of the Hopper attention kernel, causal and full: the manifest's numbers, taken as the
//! template's producer takes them, give every tile to one CTA, and the busiest CTA has little more than
//! its share.

use crossover::device::Arg;
use crossover::kernel::Tile;
use crossover::op::Problem;

use crate::common::kernel;

fn problem(b: usize, t: usize, hq: usize, hkv: usize, causal: bool) -> Problem {
    let settings = format!("B={b},T={t},Hq={hq},Hkv={hkv},D=128,causal={causal}");
    crate::common::problem("attention", &settings)
}

/// What the kernel reads of its parameters.
struct Schedule {
    workers: u32,
    tiles: u32,
    heads: u32,
    main: u32,
    rest: u32,
    rest_each: u32,
    rest_more: u32,
    rest_at: u32,
}

impl Schedule {
    fn of(problem: &Problem, tile: &Tile, multiprocessors: u32) -> Schedule {
        let kernel = kernel("attention/prefill.sm90a");
        let job = kernel.job_on(problem, tile, multiprocessors).unwrap();
        let launch = job.launches.last().unwrap();
        let entry = kernel.manifest.entry.iter().find(|e| e.name == launch.entry).unwrap();
        let word = |name: &str| {
            let at = entry.params.iter().position(|p| p.name == name).unwrap();
            match launch.args[at] {
                Arg::U32(x) => x,
                ref other => panic!("{name} is {other:?}"),
            }
        };
        Schedule {
            workers: launch.grid[0] / launch.cluster[0],
            tiles: word("NQ"),
            heads: word("BH"),
            main: word("main"),
            rest: word("rest"),
            rest_each: word("rest_each"),
            rest_more: word("rest_more"),
            rest_at: word("rest_at"),
        }
    }

    /// What the busiest worker takes, of tiles that cost so much by their place in the head; each tile is
    /// taken once.
    fn busiest(
        &self,
        name: &str,
        tiles_of: impl Fn(&Schedule, u32) -> Vec<(u32, u32)>,
        cost: impl Fn(u32) -> u32,
    ) -> u32 {
        let mut seen = vec![0; (self.tiles * self.heads) as usize];
        let mut busiest = 0;
        for worker in 0..self.workers {
            let taken = tiles_of(self, worker);
            busiest = busiest.max(taken.iter().map(|x| cost(x.1)).sum());
            taken.iter().for_each(|(h, p)| seen[(h * self.tiles + p) as usize] += 1);
        }
        assert!(seen.iter().all(|n| *n == 1), "{name}: {seen:?}");
        busiest
    }

    /// The tiles (head, place) of a worker in full attention, as `take_tile` and `decode` have them.
    fn full_tiles_of(&self, worker: u32) -> Vec<(u32, u32)> {
        let (gap, gap_at, each) = (self.rest, self.rest_at, self.rest_each);
        let mut taken = Vec::new();
        let mut next = worker;
        while next < self.tiles * self.heads + gap {
            let mut t = next;
            next += self.workers;
            if next.wrapping_sub(gap_at) < gap {
                next += self.workers;
            }
            if t >= gap_at {
                t -= gap;
            }
            taken.push(match t.checked_sub(self.main) {
                Some(head) => (head, self.tiles - 1),
                None => (t / each, t % each),
            });
        }
        taken
    }

    /// The tiles (head, place) of a worker in causal attention.
    fn causal_tiles_of(&self, worker: u32) -> Vec<(u32, u32)> {
        let pairs = self.tiles.div_ceil(2);
        let mut taken = Vec::new();
        let mut t = worker;
        while t < self.main + 2 * self.rest {
            let late = t >= self.main;
            let mut place = if late { t - self.main } else { t };
            let short = late && place >= self.rest;
            if short {
                place -= self.rest;
            }
            let each = if late { self.rest_each } else { pairs - self.rest_each };
            let of_first =
                if late { self.rest_each + 1 } else { (pairs - self.rest_each).wrapping_sub(1) };
            let firsts = self.rest_more * of_first;
            let first = place < firsts;
            let (head, mut p) = if first {
                (place / of_first, place % of_first)
            } else {
                ((place - firsts) / each + self.rest_more, (place - firsts) % each)
            };
            if late {
                p += self.rest_at;
            } else if p >= self.rest_at {
                p += self.rest_each + u32::from(first);
            }
            let long = self.tiles - 1 - p;
            taken.push((head, if short { p } else { long }));
            if !late && p < long {
                taken.push((head, p));
            }
            t = match (late, short) {
                (true, false) => u32::MAX,
                (true, true) => t + self.workers - self.rest,
                (false, _) => t + self.workers,
            };
        }
        taken
    }
}

#[test]
fn causal_every_tile_is_taken_once_and_none_has_much_more_than_its_share() {
    let kernel = kernel("attention/prefill.sm90a");
    let mut spread = 0;
    for (b, t, hq, hkv) in [
        (1, 100, 1, 1),
        (1, 256, 3, 3),
        (2, 300, 70, 10),
        (1, 1024, 64, 8),
        (4, 512, 32, 8),
        (1, 2048, 32, 8),
        (2, 2048, 16, 16),
        (16, 1024, 16, 16),
        (8, 2048, 16, 16),
        (4, 4097, 16, 16),
        (2, 8192, 64, 8),
        (1, 16384, 16, 16),
        (1, 9999, 5, 1),
    ] {
        let problem = problem(b, t, hq, hkv, true);
        for tile in [
            "WG=2,BN=128,STAGES=2,PINGPONG=1,CTAS=1,CLUSTER=1,QREGS=1",
            "WG=2,BN=128,STAGES=2,PINGPONG=0,CTAS=1,CLUSTER=2,QREGS=0",
            "WG=3,BN=80,STAGES=2,PINGPONG=0,CTAS=1,CLUSTER=2,QREGS=0",
        ] {
            let tile: Tile = tile.parse().unwrap();
            kernel.check_tile(&problem, &tile).unwrap();
            for multiprocessors in [132, 114, 20] {
                let s = Schedule::of(&problem, &tile, multiprocessors);
                let name = format!("{problem}, {tile}, {multiprocessors} multiprocessors");
                // A tile costs its blocks and one more.
                let cost = |p: u32| p + 2;
                let busiest = s.busiest(&name, Schedule::causal_tiles_of, cost);
                // Whole pairs, one round after the other.
                let pairs = s.tiles.div_ceil(2) * s.heads;
                let available = multiprocessors / if tile.0["CLUSTER"] == 2 { 2 } else { 1 };
                let whole = pairs.div_ceil(available) * (cost(s.tiles - 1) + cost(0));
                assert!(busiest * 5 <= whole * 6, "{name}: {busiest}, with whole pairs {whole}");
                spread += usize::from(s.rest > 0 && busiest < whole);
            }
        }
    }
    assert!(spread > 40, "{spread} of the schedules gain");
}

#[test]
fn full_every_tile_is_taken_once_and_shorter_ones_fill_the_last_rounds() {
    let kernel = kernel("attention/prefill.sm90a");
    let mut gained = 0;
    for (b, t, hq, hkv) in [
        (1, 1, 1, 1),
        (1, 129, 3, 3),
        (2, 300, 70, 10),
        (1, 1000, 64, 8),
        (8, 2048, 32, 32),
        (3, 2048, 20, 4),
        (4, 4097, 16, 16),
        (2, 8192, 32, 32),
        (1, 9999, 5, 1),
        (40, 320, 16, 16),
    ] {
        let problem = problem(b, t, hq, hkv, false);
        for tile in [
            "WG=2,BN=128,STAGES=2,PINGPONG=1,CTAS=1,CLUSTER=1,QREGS=1",
            "WG=2,BN=128,STAGES=2,PINGPONG=0,CTAS=1,CLUSTER=2,QREGS=0",
            "WG=3,BN=80,STAGES=2,PINGPONG=0,CTAS=1,CLUSTER=1,QREGS=0",
        ] {
            let tile: Tile = tile.parse().unwrap();
            kernel.check_tile(&problem, &tile).unwrap();
            for multiprocessors in [132, 114, 20] {
                let s = Schedule::of(&problem, &tile, multiprocessors);
                let name = format!("{problem}, {tile}, {multiprocessors} multiprocessors");
                // A tile with an idle warpgroup takes three quarters of the time.
                let late = s.main < s.tiles * s.heads;
                let cost = |p: u32| if late && p == s.tiles - 1 { 3 } else { 4 };
                let busiest = s.busiest(&name, Schedule::full_tiles_of, cost);
                let in_order = (s.tiles * s.heads).div_ceil(s.workers) * 4;
                assert!(busiest <= in_order, "{name}: {busiest}, one after the other {in_order}");
                gained += usize::from(busiest < in_order);
            }
        }
    }
    assert!(gained > 20, "{gained} of the schedules gain");
}
