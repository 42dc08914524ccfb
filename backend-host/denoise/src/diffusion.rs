//! The arithmetic of a pixel, and the sequential reference.
//!
//! A pixel moves towards each of its four neighbours by `lambda · g(d) · d`, where `d` is the neighbour's difference
//! and `g(d) = 1 / (1 + (d / kappa)²)` is Perona and Malik's second conductance: differences well below `kappa` are
//! smoothed away, those well above it are edges and stay. Beyond the picture's border a pixel finds its own value, so
//! nothing flows out, and the picture's mean stays what it is but for rounding.

use core::fmt;

/// How to diffuse. [`Params::new`] checks the numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    iterations: u32,
    kappa: f32,
    lambda: f32,
}

/// Numbers that do not make a diffusion.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ParamsError {
    /// Not a positive finite number whose square is one, too.
    Kappa {
        /// What was given.
        found: f32,
    },
    /// Not in 0 < lambda ≤ 0.25, where four neighbours cannot overshoot.
    Lambda {
        /// What was given.
        found: f32,
    },
}

impl fmt::Display for ParamsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kappa { found } => {
                write!(
                    f,
                    "kappa is {found}, but must be a positive number: the difference, on the scale of the pixels, from \
                     which on it is an edge"
                )
            }
            Self::Lambda { found } => {
                write!(f, "lambda is {found}, but must be more than 0 and at most 0.25, or the diffusion is unstable")
            }
        }
    }
}

impl core::error::Error for ParamsError {}

impl Params {
    /// `iterations` steps with edge threshold `kappa`, on the scale of the pixels, and step size `lambda`.
    ///
    /// # Errors
    /// [`ParamsError`] says which number is out of range, and what the range is.
    pub fn new(iterations: u32, kappa: f32, lambda: f32) -> Result<Self, ParamsError> {
        let square = kappa * kappa;
        if !(kappa > 0.0 && square.is_normal() && (1.0 / square).is_normal()) {
            return Err(ParamsError::Kappa { found: kappa });
        }
        if !(lambda > 0.0 && lambda <= 0.25) {
            return Err(ParamsError::Lambda { found: lambda });
        }
        Ok(Self { iterations, kappa, lambda })
    }

    /// Steps to take.
    #[must_use]
    pub const fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Edge threshold.
    #[must_use]
    pub const fn kappa(&self) -> f32 {
        self.kappa
    }

    /// Step size.
    #[must_use]
    pub const fn lambda(&self) -> f32 {
        self.lambda
    }

    /// What a step needs of them.
    #[must_use]
    pub fn stencil(&self) -> Stencil {
        Stencil { inverse_kappa_squared: 1.0 / (self.kappa * self.kappa), lambda: self.lambda }
    }
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
pub struct Stencil {
    inverse_kappa_squared: f32,
    lambda: f32,
}

impl Stencil {
    /// Before a tile knows better.
    pub(crate) const IDLE: Self = Self { inverse_kappa_squared: 0.0, lambda: 0.0 };

    /// `g(d) · d`. Odd in `d` to the last bit: what one pixel gains its neighbour loses.
    #[inline(always)]
    fn flux(&self, difference: f32) -> f32 {
        difference / (1.0 + difference * difference * self.inverse_kappa_squared)
    }

    /// The next value of a pixel. The one place that says what is added in which order.
    #[inline(always)]
    #[must_use]
    pub fn pixel(&self, center: f32, north: f32, south: f32, west: f32, east: f32) -> f32 {
        let vertical = self.flux(north - center) + self.flux(south - center);
        let horizontal = self.flux(west - center) + self.flux(east - center);
        center + self.lambda * (vertical + horizontal)
    }

    /// One step of a plane that has a frame of one cell on all sides, which is read and not written. `stride` is the
    /// length of a row with its frame, in cells. A plane of less than three rows or columns has no pixels.
    #[inline]
    pub fn step(&self, current: &[f32], next: &mut [f32], stride: usize) {
        if stride < 3 {
            return;
        }
        let mut rows = current.chunks_exact(stride);
        let (Some(mut north), Some(mut row)) = (rows.next(), rows.next()) else { return };
        for (south, next) in rows.zip(next.chunks_exact_mut(stride).skip(1)) {
            self.step_row(north, row, south, next);
            north = row;
            row = south;
        }
    }

    #[inline(always)]
    fn step_row(&self, north: &[f32], row: &[f32], south: &[f32], next: &mut [f32]) {
        let ([_, north @ ..], [_, south @ ..], [_, next @ ..]) = (north, south, next) else { return };
        for (((next, north), south), [west, center, east]) in
            next.iter_mut().zip(north).zip(south).zip(row.array_windows())
        {
            *next = self.pixel(*center, *north, *south, *west, *east);
        }
    }
}

/// The whole picture at once, in one thread, with nothing in common with the tiles but [`Stencil::pixel`]: what their
/// result is compared with. `image` holds rows of `width` pixels of one channel, and receives the result.
///
/// # Panics
/// If `image` is not whole rows, or `scratch` not as long as `image`.
pub fn diffuse_reference(image: &mut [f32], scratch: &mut [f32], width: usize, params: &Params) {
    assert!(width > 0 && image.len().is_multiple_of(width), "{} pixels are not rows of {width}", image.len());
    assert_eq!(image.len(), scratch.len(), "scratch must be as long as the image");
    let height = image.len() / width;
    let stencil = params.stencil();
    for _ in 0..params.iterations {
        scratch.copy_from_slice(image);
        let old = |x: usize, y: usize| scratch[y * width + x];
        for y in 0..height {
            for x in 0..width {
                image[y * width + x] = stencil.pixel(
                    old(x, y),
                    old(x, y.saturating_sub(1)),
                    old(x, (y + 1).min(height - 1)),
                    old(x.saturating_sub(1), y),
                    old((x + 1).min(width - 1), y),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;
    use std::{format, vec};

    fn diffuse(image: &[f32], width: usize, params: &Params) -> Vec<f32> {
        let mut image = image.to_vec();
        let mut scratch = vec![0.0; image.len()];
        diffuse_reference(&mut image, &mut scratch, width, params);
        image
    }

    fn mean(image: &[f32]) -> f64 {
        image.iter().map(|&v| f64::from(v)).sum::<f64>() / image.len() as f64
    }

    fn energy(image: &[f32]) -> f64 {
        let mean = mean(image);
        image.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum()
    }

    #[test]
    fn two_pixels_meet_as_computed_by_hand() {
        // d = 2, kappa = 2: g = 1 / (1 + 1) = 1/2, so 1/4 · 1/2 · 2 = 1/4 flows. All exact in binary.
        let params = Params::new(1, 2.0, 0.25).unwrap();
        assert_eq!(diffuse(&[1.0, 3.0], 2, &params), [1.25, 2.75]);
        assert_eq!(diffuse(&[1.0, 3.0], 1, &params), [1.25, 2.75]);
    }

    #[test]
    fn a_peak_is_shared_among_its_four_neighbours() {
        // d = 4, kappa = 4: g = 1/2, so 1/8 · 1/2 · 4 = 1/4 flows to each.
        let params = Params::new(1, 4.0, 0.125).unwrap();
        let image = [0.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(diffuse(&image, 3, &params), [0.0, 0.25, 0.0, 0.25, 3.0, 0.25, 0.0, 0.25, 0.0]);
    }

    #[test]
    fn a_framed_plane_takes_the_same_step() {
        let stencil = Params::new(1, 4.0, 0.125).unwrap().stencil();
        let mut framed = vec![0.0; 25];
        framed[12] = 4.0;
        let mut next = vec![0.0; 25];
        stencil.step(&framed, &mut next, 5);
        let rows: Vec<&[f32]> = next.chunks(5).skip(1).take(3).map(|row| &row[1..4]).collect();
        assert_eq!(rows.concat(), [0.0, 0.25, 0.0, 0.25, 3.0, 0.25, 0.0, 0.25, 0.0]);
    }

    #[test]
    fn an_edge_far_above_kappa_outlives_a_difference_far_below() {
        let params = Params::new(50, 5.0, 0.2).unwrap();
        let edge = diffuse(&[0.0, 0.0, 200.0, 200.0], 4, &params);
        assert!(edge[2] - edge[1] > 190.0, "{edge:?}");
        let ripple = diffuse(&[100.0, 101.0, 100.0, 101.0], 4, &params);
        assert!((ripple[2] - ripple[1]).abs() < 0.01, "{ripple:?}");
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        for kappa in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-30, 1e30] {
            assert!(matches!(Params::new(1, kappa, 0.2), Err(ParamsError::Kappa { .. })), "{kappa}");
        }
        for lambda in [0.0, -0.1, 0.26, f32::NAN] {
            assert_eq!(
                Params::new(1, 1.0, lambda).map_err(|e| format!("{e}")),
                Err(format!(
                    "lambda is {lambda}, but must be more than 0 and at most 0.25, or the diffusion is unstable"
                ))
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_constant_picture_does_not_change(value in 0.0f32..255.0, width in 1usize..9, height in 1usize..9) {
            let params = Params::new(7, 12.0, 0.25).unwrap();
            let image = vec![value; width * height];
            prop_assert_eq!(diffuse(&image, width, &params), image);
        }

        #[test]
        fn energy_falls_mean_stays_and_nothing_leaves_the_range(
            image in prop::collection::vec(0.0f32..255.0, 48),
            kappa in 1.0f32..100.0,
            lambda in 0.01f32..0.25,
        ) {
            let params = Params::new(1, kappa, lambda).unwrap();
            let lowest = image.iter().copied().fold(f32::MAX, f32::min);
            let highest = image.iter().copied().fold(f32::MIN, f32::max);
            let mut before = image.clone();
            for _ in 0..10 {
                let after = diffuse(&before, 8, &params);
                prop_assert!(energy(&after) <= energy(&before) * (1.0 + 1e-6) + 1e-6);
                prop_assert!((mean(&after) - mean(&before)).abs() < 1e-3);
                prop_assert!(after.iter().all(|v| (lowest - 1e-3..=highest + 1e-3).contains(v)));
                before = after;
            }
        }

        #[test]
        fn a_turned_picture_is_diffused_alike(image in prop::collection::vec(0.0f32..255.0, 35)) {
            // Transposing swaps the vertical and the horizontal sum, whose addition commutes.
            let params = Params::new(5, 20.0, 0.2).unwrap();
            let turn = |image: &[f32], width: usize| -> Vec<f32> {
                (0..width).flat_map(|x| image.iter().skip(x).step_by(width).copied()).collect()
            };
            let direct = diffuse(&image, 7, &params);
            let turned = turn(&diffuse(&turn(&image, 7), 5, &params), 5);
            prop_assert_eq!(direct, turned);
        }
    }
}
