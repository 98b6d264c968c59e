//! What is said of a cluster in which nobody can go on: who waits where, for what, and for whom.

use super::cluster::{Cluster, Halt};
use crate::device::emulator::events::Who;
use crate::device::emulator::program::{Op, Program};
use crate::device::emulator::trap::{At, Fault, FaultKind};
use crate::device::emulator::warp::{Faulted, Group, Wait, Warp};

/// Warps of one CTA that wait for the same at the same place.
struct Waiting {
    cta: usize,
    warps: [u32; 2],
    mask: u32,
    pc: usize,
    /// What is waited for, in short and in full.
    object: String,
    what: String,
    kind: FaultKind,
    /// Who else has a part in it.
    other: Option<(Who, String)>,
    whom: Awaited,
}

/// Those that a waiter waits for.
#[derive(Default, PartialEq)]
struct Awaited {
    /// CTA, warp, and lanes.
    warps: Vec<(usize, u32, u32)>,
    /// Others than these could do it too.
    perhaps: bool,
}

impl Waiting {
    fn who(&self, clusters: bool) -> String {
        let cta = if clusters { format!("CTA {} ", self.cta) } else { String::new() };
        match self.warps {
            [first, last] if first == last => format!("{cta}warp {first}"),
            [first, last] => format!("{cta}warps {first} to {last}"),
        }
    }

    fn has(&self, &(cta, warp, lanes): &(usize, u32, u32)) -> bool {
        let [first, last] = self.warps;
        self.cta == cta && (first..=last).contains(&warp) && self.mask & lanes != 0
    }

    fn line(&self, clusters: bool) -> String {
        let Waiting { mask, pc, what, .. } = self;
        format!("  {} lanes {mask:08x} at {} for {what}", self.who(clusters), At(*pc))
    }

    /// `waits at barrier 1, file.ptx:34 (PTX line 12),`
    fn stands(&self) -> String {
        let verb = if self.warps[0] == self.warps[1] { "waits" } else { "wait" };
        format!("{verb} at {}, {},", self.object, At(self.pc))
    }
}

/// Indices that lead from one to the next and, the last, back to the first.
fn circle(next: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut done = vec![false; next.len()];
    for start in 0..next.len() {
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((at, tried)) = path.last_mut() {
            let at = *at;
            let Some(&to) = next[at].get(*tried).filter(|_| !done[at]) else {
                done[at] = true;
                path.pop();
                continue;
            };
            *tried += 1;
            if let Some(from) = path.iter().position(|&(p, _)| p == to) {
                return Some(path[from..].iter().map(|&(p, _)| p).collect());
            }
            if !done[to] {
                path.push((to, 0));
            }
        }
    }
    None
}

impl Cluster {
    /// Nobody can go on.
    pub(super) fn stuck(&self, program: &Program) -> Halt {
        let clusters = self.ctas.len() > 1;
        let mut waiting: Vec<Waiting> = Vec::new();
        for (c, cta) in self.ctas.iter().enumerate() {
            for w in &cta.warps {
                for g in &w.groups {
                    let new = self.waiting(program, c, w, g);
                    match waiting.last_mut() {
                        // As the warp before it.
                        Some(o)
                            if o.warps[1] + 1 == w.id
                                && (o.cta, o.mask, o.pc) == (new.cta, new.mask, new.pc)
                                && (&o.what, &o.whom) == (&new.what, &new.whom) =>
                        {
                            o.warps[1] = w.id;
                        }
                        _ => waiting.push(new),
                    }
                }
            }
        }
        // The most telling one gives the fault its kind and place.
        let telling = waiting.iter().find(|w| w.kind != FaultKind::Deadlock);
        let Some(first) = telling.or(waiting.first()) else {
            let fault = Fault::new(FaultKind::Deadlock, None, "deadlock".into());
            return Halt { faulted: Faulted(fault, 0), rank: 0, warp: None };
        };
        let head = match first.kind {
            FaultKind::Divergence => {
                "threads that must execute an instruction together have parted for good"
            }
            FaultKind::Transaction => "deadlock: bytes that no copy brings are waited for",
            FaultKind::PhaseReuse => {
                "deadlock: a waiter has missed the phase that it waits for, and stands before a \
                 later one of the same parity"
            }
            FaultKind::Registers => {
                "deadlock: setmaxnreg waits for registers that nobody gives back"
            }
            _ => "deadlock",
        };
        let lines: Vec<String> = waiting.iter().map(|w| w.line(clusters)).collect();
        let mut message = format!("{head}; these wait:\n{}", lines.join("\n"));
        let mut other = first.other.clone();
        let next = |w: &Waiting| -> Vec<usize> {
            (0..waiting.len()).filter(|&i| w.whom.warps.iter().any(|a| waiting[i].has(a))).collect()
        };
        if let Some(circle) = circle(&waiting.iter().map(next).collect::<Vec<_>>()) {
            let (text, party) = self.in_circle(&circle, &waiting);
            message += &text;
            other = other.or(party);
        } else if let Some((text, party)) = waiting.iter().find_map(|w| self.for_the_gone(w)) {
            message += &text;
            other = other.or(party);
        }
        let fault = Fault::new(first.kind, None, message).against(other);
        let (rank, warp) = (first.cta as u32, Some(first.warps[0]));
        Halt { faulted: Faulted(fault, first.pc), rank, warp }
    }

    /// Some wait for each other.
    fn in_circle(&self, circle: &[usize], waiting: &[Waiting]) -> (String, Option<(Who, String)>) {
        let clusters = self.ctas.len() > 1;
        let mut text = String::from("\n  they wait for each other: ");
        for (i, &at) in circle.iter().enumerate() {
            let w = &waiting[at];
            text += &if i == 0 { w.who(clusters) } else { ", which".into() };
            let to = &waiting[circle[(i + 1) % circle.len()]];
            let perhaps = if w.whom.perhaps { "perhaps " } else { "" };
            let whom = if to.pc == w.pc && circle.len() == 1 {
                "themselves".into()
            } else {
                to.who(clusters)
            };
            text += &format!(" {} {perhaps}for {whom}", w.stands());
        }
        let party = circle.get(1).map(|&i| {
            let w = &waiting[i];
            let who = Who { cta: w.cta as u32, warp: w.warps[0], lanes: u32::MAX, pc: w.pc };
            (who, format!("began to wait at {}", w.object))
        });
        (text, party)
    }

    /// One waits for somebody who has exited.
    fn for_the_gone(&self, w: &Waiting) -> Option<(String, Option<(Who, String)>)> {
        let clusters = self.ctas.len() > 1;
        let gone = |a: &&(usize, u32, u32)| self.ctas[a.0].warps[a.1 as usize].alive == 0;
        let &(cta, warp, _) = w.whom.warps.iter().find(gone)?;
        let who = self.ctas[cta].warps[warp as usize].left(cta as u32);
        let of = if clusters { format!("CTA {cta} ") } else { String::new() };
        let perhaps = if w.whom.perhaps { "perhaps " } else { "" };
        let text = format!(
            "\n  {} {} {perhaps}for {of}warp {warp}, which has exited at {}",
            w.who(clusters),
            w.stands(),
            At(who.pc)
        );
        Some((text, Some((who, "exited".into()))))
    }

    /// Where a group of lanes stands.
    fn waiting(&self, program: &Program, c: usize, w: &Warp, g: &Group) -> Waiting {
        let cta = &self.ctas[c];
        let (mut pc, mut kind) = (g.pc, FaultKind::Deadlock);
        let (mut other, mut whom) = (None, Awaited::default());
        // Warps of a CTA but those of a mask.
        let but = |c: usize, mask: u32| {
            let all = (0..self.ctas[c].warps.len() as u32).filter(move |w| mask >> w & 1 == 0);
            all.map(move |w| (c, w, u32::MAX))
        };
        let of_mask = |c: usize, mask: u32| but(c, !mask);
        let (object, what) = match g.wait {
            Wait::Barrier { id, .. } => {
                pc = g.pc.saturating_sub(1);
                let (late, sure) = cta.barriers.late(id);
                whom.warps = of_mask(c, late).collect();
                whom.perhaps = !sure;
                (format!("barrier {id}"), cta.barriers.describe(id))
            }
            Wait::Lanes(members) => {
                kind = FaultKind::Divergence;
                let missing = members & !g.mask;
                whom.warps = vec![(c, w.id, missing)];
                let what = match program.insts[g.pc].op {
                    Op::Bar(_) => "a barrier of the whole warp",
                    _ => "a warp-wide instruction",
                };
                (what.into(), format!("lanes {missing:08x} at {what}"))
            }
            Wait::Mbarrier { cta: of, at, phase } => {
                let (object, text);
                (object, text, kind, other) = self.describe(w, (of, at), phase, c as u32);
                if let Some(b) = self.shared[of as usize].mbarriers.get(at)
                    && b.pending > 0
                {
                    let (late, sure) = b.late();
                    let waits = |&(c, w, _): &(usize, u32, u32)| {
                        let groups = &self.ctas[c].warps[w as usize].groups;
                        groups.iter().any(|g| g.wait == Wait::Mbarrier { cta: of, at, phase })
                    };
                    let ranks = late.iter().enumerate().take(self.ctas.len());
                    whom.warps = ranks
                        .flat_map(|(c, &late)| of_mask(c, late))
                        .filter(|a| sure || !waits(a))
                        .collect();
                    whom.perhaps = !sure;
                }
                (object, text)
            }
            Wait::Cluster { generation } => {
                let late = |c: usize| {
                    let warps = self.ctas[c].warps.iter();
                    warps.filter(|w| w.arrived.late(w.alive, generation) > 0)
                };
                let all = 0..self.ctas.len();
                whom.warps = all.flat_map(|c| late(c).map(move |w| (c, w.id, u32::MAX))).collect();
                let (missing, alive) = self.engine.barrier.missing();
                let object = String::from("barrier.cluster");
                let what = format!("{object}, {missing} of {alive} threads missing");
                (object, what)
            }
            Wait::Registers { more } => {
                if self.events.order.checks.setmaxnreg {
                    kind = FaultKind::Registers;
                }
                let what = format!(
                    "{more} registers a thread more, of which the CTA's pool has {}",
                    self.engine.pools[c].free
                );
                ("setmaxnreg".into(), what)
            }
            Wait::No => ("its turn".into(), "its turn".into()),
        };
        let warps = [w.id; 2];
        Waiting { cta: c, warps, mask: g.mask, pc, object, what, kind, other, whom }
    }

    /// What a warp waits for at an mbarrier, in short and in full; what that says of the fault; and
    /// who has a part in it.
    fn describe(
        &self,
        warp: &Warp,
        (rank, at): (u32, u32),
        phase: u64,
        own: u32,
    ) -> (String, String, FaultKind, Option<(Who, String)>) {
        let of = if rank == own { String::new() } else { format!(" of CTA {rank}") };
        let object = format!("the mbarrier at shared address {at}{of}");
        let Some(b) = self.shared[rank as usize].mbarriers.get(at) else {
            return (object.clone(), object, FaultKind::Deadlock, None);
        };
        let checks = self.events.order.checks;
        let mut text = format!("{object}: {}", b.describe());
        if let Some(who) = b.last {
            let of = if self.ctas.len() > 1 { format!("CTA {} ", who.cta) } else { String::new() };
            text += &format!("; {of}warp {} arrived last, at {}", who.warp, At(who.pc));
        }
        let seen = warp.seen.iter().find(|s| s.0 == (rank, at)).map_or(0, |s| s.1);
        let (kind, other) = if checks.phases && seen < phase && seen & 1 == phase & 1 {
            text += &format!("; this warp has not seen phase {seen}, of the same parity");
            let ended = b.ended.map(|who| (who, format!("ended phase {}", phase.max(1) - 1)));
            (FaultKind::PhaseReuse, ended)
        } else if checks.transactions && b.pending == 0 && b.tx != 0 {
            (FaultKind::Transaction, b.announced())
        } else {
            (FaultKind::Deadlock, None)
        };
        (object, text, kind, other)
    }
}

#[cfg(test)]
mod tests {
    use super::circle;

    #[test]
    fn circles_are_found() {
        assert_eq!(circle(&[vec![1], vec![2], vec![1]]), Some(vec![1, 2]));
        assert_eq!(circle(&[vec![0]]), Some(vec![0]));
        assert_eq!(circle(&[vec![1, 2], vec![2], vec![]]), None);
        assert_eq!(circle(&[]), None);
    }
}
