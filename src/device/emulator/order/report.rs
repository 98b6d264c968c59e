//! Races in words: both accesses and what would order them.

use super::super::events::{Object, Who};
use super::super::trap::{Fault, FaultKind, Party};
use super::Order;
use super::entry::{ATOMIC, ENGINE, Entry, IN_FLIGHT};
use super::global::Meeting;
use super::shared::{Clash, Why};

const BETWEEN_WARPS: &str = "nothing orders these two: both warps must pass a common barrier between \
                             them (bar.sync, a named barrier or an mbarrier)";
const COPIES: &str = "the warp that copies must wait for it (cp.async.wait_group or .wait_all), then \
                      both must pass a common barrier";
const PRODUCTS: &str = "the warpgroup must wait for the product first (wgmma.wait_group), then release \
                        the memory: by a barrier, or by arriving at the mbarrier that its writer \
                        waits for";
const BETWEEN_LANES: &str = "put `bar.warp.sync` between them, or a barrier if other warps use these \
                             words too: lanes are not ordered by where they stand in the program";
const BETWEEN_CTAS: &str = "CTAs of a launch run in any order: publish with fence and atomic (or \
                            .release/.acquire), or take two launches";
const ONE_INSTRUCTION: &str = "which lane wins is undefined: let one lane write, or use an atomic";
const PROXY: &str = "put `fence.proxy.async` behind the write, before the barrier that the engine's \
                     thread passes: the async proxy does not see writes of threads without it";

const GLOBAL_PROXY: &str = "put `fence.proxy.async` (or `fence.proxy.async.global`) behind the write, \
                            before what orders the thread that begins the copy behind it";
const MAP_PROXY: &str = "behind the writes a releasing fence (`tensormap.cp_fenceproxy`, or \
                         `fence.proxy.tensormap::generic.release`), and before the copy \
                         `fence.proxy.tensormap::generic.acquire` of the map's 128 bytes";
const BULK_WRITES: &str = "the thread that began the copy must wait for it with \
                           cp.async.bulk.wait_group (with .read it waits for the source alone), then \
                           release: by a barrier, or to other CTAs by fence and atomic";
const BULK_READS: &str = "wait first for the mbarrier on which the copy completes, or be ordered \
                          behind someone who does";

/// The access at hand is a read; faults are worded for a write.
pub fn now_reads(mut fault: Box<Fault>) -> Box<Fault> {
    fault.does = "reads it".into();
    fault
}

/// The access at hand is to an mbarrier.
pub fn now_arrives(mut fault: Box<Fault>) -> Box<Fault> {
    fault.does = "uses the mbarrier there".into();
    fault
}

/// The access at hand begins a copy into shared memory.
pub fn now_copies(mut fault: Box<Fault>) -> Box<Fault> {
    fault.does = "begins a copy into it".into();
    fault
}

/// The access at hand is a product's.
pub fn now_multiplies(mut fault: Box<Fault>) -> Box<Fault> {
    fault.does = "multiplies it (async proxy)".into();
    fault
}

/// A barrier or copy names a CTA that is not in the cluster: the caller checks ranks before.
pub fn lost(who: Who) -> Box<Fault> {
    let message = "access to the shared memory of a CTA outside of the cluster".into();
    Fault::new(FaultKind::OutOfBounds, who.lanes.trailing_zeros() & 31, message)
}

/// Two lanes of one instruction write different values to one place.
pub fn lanes_collide(space: &str, lane: u32, other: u32, at: &str) -> Box<Fault> {
    let message = format!(
        "race: lanes {lane} and {other} of one instruction write different values to {space} address {at}"
    );
    let mut fault = Fault::new(FaultKind::Race, lane, message);
    fault.hint = ONE_INSTRUCTION.into();
    fault
}

impl Order {
    pub(super) fn clash(&self, who: Who, cta: u32, flags: u64, clash: &Clash) -> Box<Fault> {
        let before = clash.before;
        let engine_now = flags & ENGINE != 0;
        let at = clash.at;
        let of =
            if self.ctas > 1 { format!(" of CTA {cta} of the cluster") } else { String::new() };
        let (party, hint, in_flight) = if before.is(ENGINE) {
            self.engine_party(before, cta, clash)
        } else {
            let in_flight = before.clock() == IN_FLIGHT;
            let does = match (in_flight, before.is(ATOMIC), clash.wrote) {
                (true, ..) => "began a copy into it that has not been waited for",
                (_, true, _) => "updated it atomically",
                (.., true) => "wrote it",
                (.., false) => "read it",
            };
            let hint = if in_flight { COPIES } else { BETWEEN_WARPS };
            (Some(self.party(before, does)), hint.to_owned(), in_flight)
        };
        let lane = if engine_now { who.lanes.trailing_zeros() & 31 } else { clash.lane };
        let (kind, message, hint) = match clash.why {
            Why::Proxy => (
                FaultKind::Proxy,
                format!(
                    "missing proxy fence: the async proxy accesses shared address {at}{of}, which a \
                     thread wrote through the generic proxy"
                ),
                PROXY.to_owned(),
            ),
            Why::Lanes => (
                FaultKind::Race,
                format!(
                    "race between lanes of one warp at shared address {at}{of}: nothing \
                     synchronises them"
                ),
                BETWEEN_LANES.to_owned(),
            ),
            Why::Unordered if in_flight => (
                FaultKind::InFlight,
                format!(
                    "shared address {at}{of}: an asynchronous operation on it has not been waited for"
                ),
                hint,
            ),
            Why::Unordered => (
                FaultKind::Race,
                format!("race at shared address {at}{of}: two accesses that nothing orders"),
                hint,
            ),
        };
        let mut fault = Fault::new(kind, lane, message);
        fault.does = if engine_now {
            "begins an asynchronous write of it"
        } else if flags & ATOMIC != 0 {
            "updates it atomically"
        } else {
            "writes it"
        }
        .into();
        fault.other = party;
        fault.hint = hint;
        fault
    }

    /// A copy completes on an mbarrier that the async proxy does not see yet.
    pub(super) fn unfenced_init(&self, who: Who, at: u32, init: Entry) -> Box<Fault> {
        let message = format!(
            "missing proxy fence: a copy will complete on the mbarrier at shared address {at}, whose \
             initialisation the async proxy need not see"
        );
        let mut fault = Fault::new(FaultKind::Proxy, who.lanes.trailing_zeros() & 31, message);
        fault.does = "begins the copy".into();
        fault.other = Some(self.party(init, "initialised it"));
        fault.hint = "put `fence.mbarrier_init.release.cluster` or `fence.proxy.async` behind \
                      mbarrier.init, before the barrier that the others pass"
            .into();
        fault
    }

    /// The warp and lane of an entry.
    pub(super) fn party(&self, e: Entry, does: &str) -> Party {
        let a = e.actor();
        Party {
            does: does.into(),
            cta: self.number - self.oldest + u64::from(a / self.warps.max(1)),
            warp: a % self.warps.max(1),
            lane: Some(e.lane()),
            pc: e.pc(),
        }
    }

    /// The engine's access as its copy describes it; what to wait for; whether it goes on.
    fn engine_party(
        &self,
        before: Entry,
        cta: u32,
        clash: &Clash,
    ) -> (Option<Party>, String, bool) {
        let products = |object: &Object| matches!(object, Object::Products { .. });
        if let Some((Object::Products { cta, warp }, _)) =
            self.engines.iter().find(|(o, e)| **e == before.actor() && products(o))
        {
            let party = Party {
                does: "began a product that reads it".into(),
                cta: self.number - self.oldest + u64::from(*cta),
                warp: *warp,
                lane: None,
                pc: before.pc(),
            };
            return (Some(party), PRODUCTS.into(), true);
        }
        let in_flight = before.clock() == IN_FLIGHT;
        let at = clash.at as u32;
        let covers = |c: &&super::Copy| {
            c.engine == before.actor()
                && c.write == clash.wrote
                && c.span.cta == cta
                && (c.span.at & !3..c.span.at + c.span.bytes).contains(&at)
                && before.pc().is_none_or(|pc| pc == c.who.pc)
        };
        let copy = self.copies.iter().rev().find(covers);
        let hint = match copy.map(|c| c.object) {
            Some(Object::Mbarrier { at, .. }) => format!(
                "wait first for the phase of the mbarrier at shared address {at} on which it \
                 completes (mbarrier.try_wait), or be ordered behind someone who does"
            ),
            Some(Object::BulkGroup { .. }) if clash.wrote => {
                "wait for its group first: cp.async.bulk.wait_group".into()
            }
            Some(Object::BulkGroup { .. }) => {
                "wait for its group first (cp.async.bulk.wait_group.read), then pass a barrier"
                    .into()
            }
            _ => "wait for the asynchronous operation first, then pass a barrier".into(),
        };
        let party = copy.map(|c| Party {
            does: match (clash.wrote, in_flight) {
                (true, true) => "began a copy that writes it and has not been waited for",
                (true, false) => "began a copy that wrote it",
                (false, true) => "began an operation that reads it and has not been waited for",
                (false, false) => "began an operation that read it",
            }
            .into(),
            cta: self.number - self.oldest + u64::from(c.who.cta),
            warp: c.who.warp,
            lane: Some(c.who.lanes.trailing_zeros() & 31),
            pc: Some(c.who.pc),
        });
        (party, hint, in_flight)
    }

    /// Two accesses to global memory.
    pub(super) fn meeting(&self, who: Who, lane: u32, does: &str, met: &Meeting) -> Box<Fault> {
        let t = met.before;
        let cta = t.cta() + u64::from(t.rank());
        let same = cta.wrapping_sub(self.number) == u64::from(who.cta);
        let map = does.ends_with("map there");
        let (kind, message, hint) = match (met.unfenced, t.by_engine()) {
            (true, _) if map => (
                FaultKind::Proxy,
                "missing proxy fence: a copy takes a tensor map from global memory that threads of \
                 this launch wrote",
                MAP_PROXY,
            ),
            (true, _) => (
                FaultKind::Proxy,
                "missing proxy fence: the async proxy accesses global memory that a thread wrote \
                 through the generic proxy",
                GLOBAL_PROXY,
            ),
            (_, by_engine) => (
                FaultKind::Race,
                if same && by_engine {
                    "race in global memory with a bulk copy of the same CTA: nothing orders the two"
                } else if same {
                    "race in global memory between warps of one CTA: two accesses that nothing \
                     orders"
                } else {
                    "race in global memory between CTAs of one launch: two accesses that nothing \
                     orders"
                },
                match (by_engine, met.wrote) {
                    (true, true) => BULK_WRITES,
                    (true, false) => BULK_READS,
                    _ if same => BETWEEN_WARPS,
                    _ => BETWEEN_CTAS,
                },
            ),
        };
        let mut fault = Fault::new(kind, lane, message.into());
        fault.does = does.into();
        fault.other = Some(Party {
            does: match (t.by_engine(), met.wrote) {
                (true, true) => "began a bulk copy that writes it",
                (true, false) => "began a bulk copy that reads it",
                (_, true) => "wrote it",
                (_, false) => "read it",
            }
            .into(),
            cta: cta - self.oldest,
            warp: met.what.warp(),
            lane: Some(met.what.lane()),
            pc: met.what.pc(),
        });
        fault.hint = hint.into();
        fault
    }
}
