//! Records of one case by several processes, as one.

use indexmap::IndexMap;

use super::{Record, Status, Timing};

/// Of each case that several processes measured (`run --repeat-process`) one record: that of the process
/// whose median is the middle one, with an interval that holds all of theirs. Others are left as they
/// are, failures among them.
pub fn joined(records: &[Record]) -> Vec<Record> {
    let mut cases: IndexMap<String, Vec<&Record>> = IndexMap::new();
    for (i, r) in records.iter().enumerate() {
        let several = r.process.is_some() && r.status == Status::Ok;
        let key = if several { r.id.clone() } else { format!("{i}") };
        cases.entry(key).or_default().push(r);
    }
    cases.into_values().map(|of| join(&of)).collect()
}

fn join(of: &[&Record]) -> Record {
    let ns = |r: &Record| r.timing.as_ref().map_or(f64::NAN, Timing::ns);
    let mut sorted = of.to_vec();
    sorted.sort_by(|a, b| ns(a).total_cmp(&ns(b)));
    let mut record = sorted[(sorted.len() - 1) / 2].clone();
    let intervals: Vec<(f64, f64)> = of
        .iter()
        .filter_map(|r| match &r.timing {
            Some(Timing::Measured { ci_ns, .. }) => Some(*ci_ns),
            _ => None,
        })
        .collect();
    if of.len() > 1
        && let Some(Timing::Measured { ci_ns, warnings, .. }) = &mut record.timing
    {
        let lower = intervals.iter().map(|ci| ci.0).fold(f64::INFINITY, f64::min);
        let upper = intervals.iter().map(|ci| ci.1).fold(f64::NEG_INFINITY, f64::max);
        *ci_ns = (lower, upper);
        warnings.push(format!(
            "the middle one of {} processes, whose medians span {:.2}%",
            of.len(),
            100.0 * (ns(sorted[sorted.len() - 1]) / ns(sorted[0]) - 1.0)
        ));
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::made_up::{Made, ops};

    fn of(process: Option<u32>, ns: f64) -> Record {
        Record { process, ..Made::new(ops()[0], 1024, ns).record() }
    }

    #[test]
    fn processes_become_one_record_with_all_their_spread() {
        let times = [1030.0, 1000.0, 1010.0, 1020.0];
        let mut records: Vec<Record> =
            times.iter().enumerate().map(|(i, ns)| of(Some(i as u32), *ns)).collect();
        let failed = Record { status: Status::Timeout, timing: None, ..of(Some(4), 1.0) };
        records.push(failed.clone());
        let joined = joined(&records);
        assert_eq!(joined.len(), 2);
        assert_eq!(joined[1], failed);
        let Some(Timing::Measured { median_ns, ci_ns, warnings, .. }) = &joined[0].timing else {
            panic!("measured");
        };
        assert_eq!(*median_ns, 1010.0);
        let own = |r: &Record| match &r.timing {
            Some(Timing::Measured { ci_ns, .. }) => *ci_ns,
            _ => panic!("measured"),
        };
        assert_eq!(*ci_ns, (own(&records[1]).0, own(&records[0]).1));
        assert!(warnings.last().is_some_and(|w| w.contains("4 processes") && w.contains("3.00%")));
    }

    #[test]
    fn what_one_process_measured_stays() {
        let records = [of(None, 5.0), of(None, 6.0), of(Some(0), 7.0)];
        assert_eq!(joined(&records), records);
    }
}
