//! From samples to numbers.

use crate::sample::Sample;
use serde::{Deserialize, Serialize};

/// Quartiles of one metric of one row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quartiles {
    pub q1: f64,
    pub median: f64,
    pub q3: f64,
}

/// Linear interpolation between ranks.
pub fn quartiles(mut values: Vec<f64>) -> Option<Quartiles> {
    values.retain(|value| value.is_finite());
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let at = |share: f64| {
        let rank = share * last as f64;
        let (low, part) = (rank.floor() as usize, rank.fract());
        values[low] + part * (values[(low + 1).min(last)] - values[low])
    };
    Some(Quartiles { q1: at(0.25), median: at(0.5), q3: at(0.75) })
}

/// Samples whose distances are within this factor count as taken in the same state of the machine.
const WIDTH: f64 = 1.3;

/// The distances, ns, at which most samples of a column were taken. Works on all rows together, so that each is judged
/// by the same state.
pub fn window<'s>(samples: impl Iterator<Item = &'s Sample>) -> Option<(f64, f64)> {
    let mut distances: Vec<f64> = samples.filter_map(|s| s.distance).flat_map(|(a, b)| [a, b]).collect();
    distances.sort_unstable_by(f64::total_cmp);
    let inside = |low: f64| distances.partition_point(|d| *d <= low * WIDTH) - distances.partition_point(|d| *d < low);
    let low = distances.iter().copied().max_by_key(|low| inside(*low))?;
    Some((low, low * WIDTH))
}

/// Whether a sample belongs to the window.
pub fn belongs(sample: &Sample, window: Option<(f64, f64)>) -> bool {
    match (sample.distance, window) {
        (Some((before, after)), Some((low, high))) => (low..=high).contains(&before) && (low..=high).contains(&after),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_interpolate() {
        let q = quartiles(vec![4.0, 1.0, 3.0, 2.0, f64::NAN]).unwrap();
        assert_eq!((q.q1, q.median, q.q3), (1.75, 2.5, 3.25));
        assert_eq!(quartiles(vec![]), None);
    }

    #[test]
    fn the_window_is_where_most_samples_are() {
        let at = |d: f64| Sample { values: vec![], distance: Some((d, d)), preempted: false };
        let samples = [at(250.0), at(100.0), at(105.0), at(120.0), at(280.0)];
        let window = window(samples.iter());
        assert_eq!(samples.iter().filter(|s| belongs(s, window)).count(), 3);
        let moved = Sample { distance: Some((100.0, 250.0)), ..at(0.0) };
        assert!(!belongs(&moved, window));
        assert!(belongs(&Sample { distance: None, ..moved }, window));
    }
}
